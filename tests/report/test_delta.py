import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.delta import delta_figure, delta_rows, delta_table, load_delta, render_delta, verdict
from rectilinear.report.folder import table_csv
from rectilinear.report.html import delta_page
from rectilinear.report.svg import svg
from rectilinear.results import Change, Changes, DeltaResult, LayerDelta

HOSTILE = "</title><script>alert(1)</script>[bold]x[/bold]\x1b[31m\ud800"


def changes(delta, spread=0.01, base=0.5):
    seen = Change(base, base + delta, delta, delta - spread, delta + spread)
    return Changes(Change(base, base + delta, delta), seen, replace(seen, low=-1.0))


@pytest.fixture
def result():
    gap = Change(None, None, None)
    layers = [LayerDelta(i, changes(0.004 * i), changes(0.051 - 0.004 * i)) for i in range(12)]
    layers.append(LayerDelta(12, Changes(gap, gap, gap), changes(-2.0)))
    return DeltaResult(
        before={"model": HOSTILE, "dtype": "float32"},
        after={"model": "b", "dtype": "float32"},
        provenance={"text": HOSTILE, "tokens": 4000, "tokens_heldout": 1000, "command": HOSTILE},
        layers=tuple(layers),
        mean={"score": changes(0.002), "increment": changes(0.03)},
        warnings=(f"Mind {HOSTILE}.",),
    )


def shown(result, width):
    file = io.StringIO()
    Console(file=file, width=width).print(delta_table(result))
    return file.getvalue()


def test_the_document_reads_back_equal(result):
    assert DeltaResult.from_dict(json.loads(result.to_json())) == result


def test_other_documents_are_refused(result):
    for change, said in (({"schema": 9}, "schema 9"), ({"kind": "scan"}, "kind 'scan'"), ({"mean": 3}, "damaged")):
        with pytest.raises(ResultError, match=said):
            DeltaResult.from_dict({**result.to_dict(), **change})


def test_only_an_interval_without_zero_has_moved():
    cases = [((0.01, 0.02), True), ((-0.02, -0.01), True), ((-0.01, 0.01), False), ((0.0, 0.0), False)]
    for (low, high), moved in [*cases, ((None, None), False)]:
        assert Change(0.1, 0.2, 0.1, low, high).moved is moved


def test_the_table_fits_a_narrow_terminal_and_marks_what_moved(result):
    text = shown(result, 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "+0.0510*" in text and "+0.0070 " in text and "12 and 1 of 13 layers" in text
    assert "…" in text and "\x1b" not in text and "[bold]x[/bold]" in text
    assert verdict(result, "heldout") == "held-out 0.5000 → 0.5300: +0.0300 (+0.0200 … +0.0400), more than noise"
    assert verdict(result, "ordinary").endswith("no more than noise")


def test_the_page_is_whole_and_escapes_text_from_data(result):
    page = delta_page(result, {"delta": delta_figure(result)})
    seen = Seen(page)
    assert seen.tags.count("script") == 1 and "\x1b" not in page
    assert len(seen.ids) == len(set(seen.ids))
    assert {link[1:] for link in seen.links} <= set(seen.ids)
    # The note; layers of the increment score, held-out and ordinary; layers of the score.
    assert page.count('class="mark">◆') == 1 + 12 + 1 + 9


def test_the_csv_has_a_line_a_layer(result):
    rows = list(csv.DictReader(io.StringIO(table_csv(delta_rows(result)))))
    assert len(rows) == 13 and rows[12]["score_heldout_delta"] == ""
    assert float(rows[1]["increment_heldout_low"]) == pytest.approx(0.037)


def test_a_folder_is_written_whole_and_drawn_again(result, tmp_path):
    out = result.save(tmp_path / "out")
    files = {path.name for path in out.rglob("*.*")}
    assert files == {"delta.json", "layers.csv", "report.html", "delta.svg", "delta.png"}
    with pytest.raises(ResultError, match="--force"):
        result.save(out)
    assert result.save(out, force=True) == out
    for name in ("report.html", "layers.csv", "plots/delta.svg", "plots/delta.png"):
        (out / name).unlink()
    render_delta(load_delta(out), out)
    assert {path.name for path in out.rglob("*.*")} == files - {"delta.png"}
    assert load_delta(out / "delta.json") == result
    render_delta(result, out, png=True)
    assert {path.name for path in out.rglob("*.*")} == files
    (out / "delta.json").write_text("[1]")
    with pytest.raises(ResultError, match="got list"):
        load_delta(out)


def test_ordinary_tokens_are_drawn_only_where_they_are_not_all_tokens(result):
    def alike(changes):
        return replace(changes, ordinary=changes.heldout)

    layers = [replace(one, score=alike(one.score), increment=alike(one.increment)) for one in result.layers]
    assert "ordinary, after" in svg(delta_figure(result), "d")
    drawn = svg(delta_figure(replace(result, layers=tuple(layers))), "d")
    assert "ordinary, after" not in drawn and "held-out, after" in drawn
