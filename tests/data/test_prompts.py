import json

import pytest

from rectilinear.data.prompts import read_prompts
from rectilinear.errors import TextError


def test_every_form_gives_the_same_prompts(tmp_path):
    yaml, text, rows = (tmp_path / name for name in ("p.yaml", "p.txt", "p.jsonl"))
    yaml.write_text("- |-\n  Once upon \n- 'a \"time'\n")
    text.write_text('Once upon \n\na "time\n')
    rows.write_text("\n".join(json.dumps({"prompt": p}) for p in ("Once upon", 'a "time')))
    for path in (yaml, text, rows):
        assert read_prompts(str(path)) == ("Once upon", 'a "time')


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.yaml", "a: 1", "YAML list"),
        ("p.yaml", "- [", "YAML list"),
        ("p.yaml", "- 3", "prompt 1"),
        ("p.yaml", "!!python/object/apply:os.system [exit]", "YAML list"),
        ("p.txt", "\n \n", "got none"),
        ("p.jsonl", '{"text": "x"}', "prompt 1"),
    ],
)
def test_what_is_no_prompt_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(TextError, match=said):
        read_prompts(str(path))


def test_a_file_that_is_not_there(tmp_path):
    for name in ("p.yaml", "p.txt", "p.jsonl"):
        with pytest.raises(TextError):
            read_prompts(str(tmp_path / name))
