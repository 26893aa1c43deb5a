import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from disk import limits, unchanged
from rectilinear.errors import ResultError
from rectilinear.report.reproduction import (
    figure,
    load_reproduction,
    render_reproduction,
    reproduction_table,
    save_reproduction,
)
from rectilinear.report.shapes import Area, Text
from rectilinear.results import FAILS, Plot, PlotCurve, Reproduced, ReproductionResult, Row, Run, Spread, Verdict

HOSTILE = "<script>alert(1)</script>[bold]\x1b[31m\u202e"


def part(name="fig1", plots=1, **options):
    curve = PlotCurve(HOSTILE, (0.0, 1.0, 2.0), (0.5, None, 0.0))
    rows = (Row("a", HOSTILE, Spread(0.99), Spread(0.5, 0.1)), Row("b", "b", None, Spread(12.0)))
    verdicts = (Verdict(HOSTILE, FAILS, HOSTILE, ("a above b",)),)
    runs = (Run("one", HOSTILE, "runs/one", 1.5),)
    drawn = tuple(Plot(f"layer {n}", (curve, replace(curve, dashed=True)), **options) for n in range(plots))
    return Reproduced(name, HOSTILE, "nowhere", verdicts, rows, drawn, "depth", False, runs, (HOSTILE,))


@pytest.fixture
def result():
    return ReproductionResult((part(), part("fig9", plots=7, log=True), part("table1", plots=0)), {"scale": "smoke"})


def test_a_result_survives_its_document(result, tmp_path):
    save_reproduction(result, tmp_path / "out")
    assert load_reproduction(tmp_path / "out") == result
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {
        f"{name}.{kind}" for name in ("fig1", "fig9") for kind in ("svg", "png")
    }


def test_a_full_disk_leaves_the_old_result_and_the_old_drawing(result, tmp_path, monkeypatch):
    monkeypatch.setattr("rectilinear.report.folder._write_pngs", lambda figures, folder: None)
    out = save_reproduction(result, tmp_path / "out")
    unchanged(tmp_path, lambda: save_reproduction(result, out, force=True), limits(out))
    unchanged(tmp_path, lambda: render_reproduction(result, out), limits(out))


def test_text_from_data_is_escaped(result, tmp_path):
    page = (save_reproduction(result, tmp_path / "out") / "reproduction.html").read_text()
    assert "<script>alert" not in page and "\x1b" not in page and "\u202e" not in page
    console = Console(file=io.StringIO(), width=100)
    console.print(reproduction_table(result))
    said = console.file.getvalue()
    assert "\x1b" not in said and "[bold]" in said
    assert "Of 3 claims at scale smoke: 3 do not hold." in said


def test_tables_hold_the_numbers(result, tmp_path):
    rows = list(csv.DictReader((save_reproduction(result, tmp_path / "out") / "values.csv").open()))
    assert (rows[0]["paper"], rows[0]["paper_std"], rows[0]["measured"], rows[0]["measured_std"]) == (
        *("0.99", "", "0.5", "0.1"),
    )
    page = (tmp_path / "out" / "reproduction.html").read_text()
    assert "<td>0.9900</td><td>0.5000 ± 0.1000</td>" in page and "<td>–</td><td>12</td>" in page


def test_many_plots_stand_in_a_grid(result):
    titles = [[s.words for s in figure(one).plain() if isinstance(s, Text) and s.bold] for one in result.parts[:2]]
    assert titles == [["layer 0"], []]
    places = {(s.x, s.y) for s in figure(result.parts[1]).plain() if isinstance(s, Text) and s.words[:5] == "layer"}
    assert len({x for x, _ in places}) == 6 and len({y for _, y in places}) == 2
    assert sum(isinstance(shape, Area) for shape in figure(result.parts[1]).plain()) == 14


def test_another_document_is_refused(tmp_path):
    (tmp_path / "reproduction.json").write_text(json.dumps({"schema": 1, "kind": "scan"}))
    with pytest.raises(ResultError, match="expected a reproduction of schema 1"):
        load_reproduction(tmp_path)
    (tmp_path / "reproduction.json").write_text(json.dumps({"schema": 1, "kind": "reproduction", "parts": [{}]}))
    with pytest.raises(ResultError, match="damaged"):
        load_reproduction(tmp_path)
