import pytest

from rectilinear.data.prompts import read_prompts
from rectilinear.errors import RectilinearError
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.plainyaml import ALIASES, from_yaml

LAUGHS = ["l0: &l0 [x, x]", *(f"l{i}: &l{i} [*l{i - 1}, *l{i - 1}]" for i in range(1, 30))]
MERGES = ["m0: &m0 {a: 1}", *(f"m{i}: &m{i}\n  <<: [*m{i - 1}, *m{i - 1}]" for i in range(1, 40))]
INSIDE = ["text:", *(f"  - &l{i} [{f'*l{i - 1}, *l{i - 1}' if i else 'x, x'}]" for i in range(30))]
ROUND = ["text: &t [a, *t]"]


@pytest.mark.parametrize(
    "lines", [[*LAUGHS, "text: *l29"], INSIDE, MERGES, ROUND, ["a: &a 1", "b: [", "*a," * 101, "]"]]
)
def test_a_few_lines_of_yaml_that_stand_for_endless_ones_are_refused_at_once(lines, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RectilinearError, match=r"at most 100 aliases, and none within .* in line "):
        Recipe.load(path).check()
    listed = path.rename(tmp_path / "prompts.yaml")
    with pytest.raises(RectilinearError, match="at most 100 aliases"):
        read_prompts(str(listed))


def test_aliases_of_what_has_none_stand_for_it():
    assert from_yaml("a: &a {b: 1}\nc: *a\nd:\n  <<: *a\n  e: 2") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }
    assert len(from_yaml("- &a x\n" + "- *a\n" * ALIASES)) == ALIASES + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "no more than 200 parts within each other in line 1, column 202"),
        ("a: 0x" + "f" * 6000, "whole numbers of up to 63 bits"),
        ("a: 9223372036854775808", "whole numbers of up to 63 bits"),
        ("a: !!bool x", "a tag that its value does not fit"),
        ("a: !!float ''", "a tag that its value does not fit"),
        ("a: !!timestamp x", "a tag that its value does not fit"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: [", "line 1"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_what_cannot_be_read_is_one_line(text, said):
    with pytest.raises(ValueError, match=said) as error:
        from_yaml(text)
    assert "\n" not in str(error.value)
