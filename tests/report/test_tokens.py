import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console

from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.heatmap import SHOWN, heat_map, shade
from rectilinear.report.html import tokens_page
from rectilinear.report.tokens import save_tokens, tokens_table
from rectilinear.results import Guess, TokenResult, TokensResult

HOSTILE = ("<script>alert(1)</script>", "\"'&", "\u202eevil", "😀", "\ud800", "[bold]x[/bold]", "\x1b[31m", "a\nb")


def token_of(at, text, layers, last=False):
    errors = tuple((at + layer) / 10 for layer in range(layers))
    same = tuple(float(layer) for layer in range(layers))
    guesses = tuple(Guess(text, 0.1 * layer / layers) for layer in range(layers + 1))
    sink = tuple(at == 0 for _ in range(layers))
    rank = (None, None) if last else (1234, 0.25)
    return TokenResult(at, 7, text, (None, *errors[1:]), same, same, same, same, sink, guesses, guesses, *rank)


def result_of(texts=HOSTILE, layers=12):
    tokens = tuple(token_of(at, text, layers, at == len(texts) - 1) for at, text in enumerate(texts))
    facts = {
        "model": "org/tiny [bold]<b>",
        "d": 32,
        "command": "rectilinear tokens --prompt '</title><script>alert(2)</script>\ud800'",
        "maps": {"tokens": 16384, "text": "wiki <img src=x>"},
    }
    return TokensResult(facts, tokens, ("Careful <img src=x> [bold].",))


def printed(result, width=80, **options):
    stream = io.StringIO()
    Console(file=stream, width=width, **options).print(tokens_table(result))
    return stream.getvalue()


def test_the_document_is_read_as_it_was_written():
    result = result_of()
    document = json.loads(result.to_json())
    assert document["kind"] == "tokens" and document["schema"] == 1
    assert document["tokens"][0]["prediction"] == document["tokens"][0]["logit_lens"][-1]
    assert document["tokens"][0]["relative_error"][0] is None
    assert TokensResult.from_dict(document) == result
    assert result.tokens[0].median_error == pytest.approx(0.6)
    for damage in ({"kind": "scan"}, {"schema": 99}, {"tokens": [{}]}):
        with pytest.raises(ResultError, match="run rectilinear tokens again"):
            TokensResult.from_dict({**document, **damage})


def test_shades_are_tenths():
    assert [shade(v) for v in (None, 0.0, 0.099, 0.5, 0.999, 1.0, 1.01, 80.0)] == [None, 0, 0, 5, 9, 9, 10, 10]


def test_the_terminal_shows_digits_and_fits():
    for width, layers in ((80, 12), (80, 48), (40, 12), (100, 1)):
        text = printed(result_of(layers=layers), width)
        assert all(len(line) <= width for line in text.splitlines())
    text = printed(result_of())
    assert "org/tiny [bold]<b>" in text and "! Careful <img src=x> [bold]." in text and "[bold]x[/bold]" in text
    assert "\x1b" not in text and "\u202e" not in text and "\ud800" not in text
    row = next(line for line in text.splitlines() if "'😀'" in line)
    assert "· 4 5 6 7 8 9 9 + + + + " in row
    assert "· ◆" not in row and "·◆1◆2◆" in text
    assert "after layer 11" in text and "1,234" in text


def test_colours_where_there_are_some():
    assert re.search(r"\x1b\[[\d;]*48;2;", printed(result_of(), force_terminal=True, color_system="truecolor"))
    assert "48;" not in printed(result_of(), force_terminal=True, no_color=True)


def test_the_page_escapes_what_comes_from_data_and_loads_nothing():
    page = tokens_page(result_of())
    seen = Seen(page)
    assert seen.tags.count("script") == 1 and not {"img", "b", "i"} & (set(seen.tags) - {"b"})
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page
    assert not {"\u202e", "\x1b", "\ud800"} & set(page)
    assert len(seen.ids) == len(set(seen.ids))
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.ids)
    assert "relative error: 0.1000\nbias of the map: 1.0000" in page
    assert tokens_page(result_of(("one",), 1))


def test_long_prompts_show_their_end():
    result = result_of(("word",) * (SHOWN + 5), 2)
    assert f"the last {SHOWN} shown" in printed(result) and f"the last {SHOWN} shown" in tokens_page(result)


def test_the_folder_is_whole_or_not_there(tmp_path):
    result = result_of()
    out = save_tokens(result, tmp_path / "out", lambda folder: (folder / "maps.safetensors").touch())
    names = {"tokens.json", "tokens.html", "heatmap.svg", "heatmap.png", "SHA256SUMS"}
    assert {path.name for path in out.iterdir()} == names | {"maps.safetensors"}
    assert TokensResult.from_dict(json.loads((out / "tokens.json").read_text())) == result
    with pytest.raises(ResultError, match="--force"):
        result.save(out)

    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(ResultError, match="No space left"):
        result.save(out, full, force=True)
    assert {path.name for path in out.iterdir()} == names | {"maps.safetensors"}
    result.save(out, force=True)
    assert {path.name for path in out.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_drawing_has_a_cell_for_each_layer_and_token():
    result = result_of()
    drawing = heat_map(result.tokens)
    cells = sum(len(shape.shapes) for shape in drawing.shapes if hasattr(shape, "shapes") and shape.crisp)
    assert cells == 11 * len(HOSTILE) + 11  # layer 0 adds nothing; the key
    none = [replace(one, relative_error=(None,) * 12) for one in result.tokens]
    assert heat_map(none).height == drawing.height
