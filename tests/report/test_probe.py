import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.folder import table_csv
from rectilinear.report.html import probe_page
from rectilinear.report.probe import load_probe, probe_figure, probe_rows, probe_table, render_probe
from rectilinear.results import ProbeCurve, ProbePoint, ProbeResult

HOSTILE = "</title><script>alert(1)</script>[bold]x[/bold]\x1b[31m\ud800"


def curve(name, positions, **gap):
    points = tuple(ProbePoint(i, 0.5 + 0.02 * i, 0.45 + 0.02 * i, 0.55 + 0.02 * i, 0.9, 0.01) for i in range(positions))
    return ProbeCurve(name, {"model": name, "dtype": "float32"}, points, **gap)


@pytest.fixture
def result():
    return ProbeResult(
        task={
            "name": HOSTILE,
            "source": "s",
            "labels": ("no", HOSTILE),
            "train": 100,
            "test": 50,
            "test_groups": 50,
        },
        majority=0.53,
        curves=(curve(HOSTILE, 9), curve("second", 9, gap=0.05, gap_low=0.01, gap_high=0.09)),
        provenance={"pooling": "mean", "command": HOSTILE},
        warnings=(f"Mind {HOSTILE}.",),
    )


def shown(result, width=80):
    file = io.StringIO()
    Console(file=file, width=width).print(probe_table(result))
    return file.getvalue()


def test_the_document_reads_back_equal(result):
    assert ProbeResult.from_dict(json.loads(result.to_json())) == result
    assert result.to_dict()["curves"][0]["best"] == 8
    assert result.to_dict()["curves"][0]["mean"] == pytest.approx(0.58)


def test_other_documents_are_refused(result):
    for change, said in (({"schema": 9}, "schema 9"), ({"kind": "scan"}, "kind 'scan'"), ({"curves": [{}]}, "damaged")):
        with pytest.raises(ResultError, match=said):
            ProbeResult.from_dict({**result.to_dict(), **change})


def test_the_table_shows_intervals_where_there_is_room(result):
    text = shown(result)
    assert "0.500  0.450 … 0.550" in text and "gets 0.530" in text
    assert "best 0.660 (0.610 … 0.710) at position 8, mean 0.580" in text
    assert "+0.050 (+0.010 … +0.090)" in text
    assert "\x1b" not in text and "[bold]x[/bold]" in text
    many = replace(result, curves=(*result.curves, curve("third", 4)))
    assert "0.500  0.450" not in shown(many) and "third" in shown(many)


def test_models_of_unlike_depth_are_drawn_over_normalised_depth(result):
    words = [getattr(shape, "words", "") for shape in probe_figure(result).plain()]
    assert "position of the stream (0: embedding)" in words and "more frequent class" in words
    uneven = replace(result, curves=(*result.curves, curve("third", 4)))
    words = [getattr(shape, "words", "") for shape in probe_figure(uneven).shapes]
    assert "normalised depth (position / last position)" in words


def test_the_page_is_whole_and_escapes_text_from_data(result):
    page = probe_page(result, {"probe": probe_figure(result)})
    seen = Seen(page)
    assert seen.tags.count("script") == 1 and "\x1b" not in page
    assert len(seen.ids) == len(set(seen.ids))
    assert "0.660" in page and "0.610 … 0.710" in page and "+0.050 (+0.010 … +0.090)" in page


def test_the_csv_has_a_line_a_model_and_position(result):
    rows = list(csv.DictReader(io.StringIO(table_csv(probe_rows(result)))))
    assert len(rows) == 18 and rows[17]["model"] == "second" and float(rows[17]["accuracy"]) == 0.66


def test_a_folder_is_written_whole_and_drawn_again(result, tmp_path):
    out = result.save(tmp_path / "out")
    files = {path.name for path in out.rglob("*.*")}
    assert files - {"SHA256SUMS"} == {"probe.json", "layers.csv", "report.html", "probe.svg", "probe.png"}
    with pytest.raises(ResultError, match="--force"):
        result.save(out)
    (out / "report.html").unlink()
    assert load_probe(out) == load_probe(out / "probe.json") == result
    render_probe(result, out)
    assert {path.name for path in out.rglob("*.*")} == files
