"""Results in a notebook: what it shows, the figure it plots, the table they become."""

import io
import sys
from dataclasses import replace

import pandas
import pytest
from PIL import Image

from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.notebook import VIEWS
from rectilinear.results.shown import Drawn, Shown


def test_every_kind_of_result_shows_itself_as_compact_and_escaped_html(results):
    assert {type(result) for result in results} == set(VIEWS)
    for result in results:
        page = result._repr_html_()
        seen = Seen(page)
        assert "script" not in seen.tags and "pre" in seen.tags
        assert ("svg" in seen.tags) == isinstance(result, Drawn)
        assert not seen.links and not seen.ids  # many stand in one notebook
        assert len(page) < 60_000
        assert type(result).__name__ in repr(result) and len(repr(result)) < 1500
    assert "Linear maps explain" in results[0]._repr_html_()


def test_every_result_becomes_a_table(results):
    rows = {type(result).__name__: result.to_frame() for result in results}
    assert all(isinstance(table, pandas.DataFrame) and len(table) for table in rows.values())
    scan = results[0]
    assert rows["ScanResult"]["score_paper"].tolist() == [layer.score.paper for layer in scan.layers]
    assert (
        rows["TextsResult"].query("source == 'prose' and layer == 0 and kind == 'score'")["score"].tolist()
        == [0.5, 0.1] * 2
    )
    assert rows["SweepResult"]["layers"].tolist() == ["", "1", "1 2"]
    assert rows["TokensResult"]["relative_error"].tolist() == [0.2, 0.4]
    assert rows["EvalResult"]["name"].tolist() == [results[4].models[0].name]
    assert rows["PruneResult"]["layers"].tolist() == [6, 4]
    assert rows["HealResult"]["loss"].tolist() == [1.9, 1.8]
    assert rows["TraceResult"]["step"].tolist() == [1, 1, 1, 64, 64, 64]
    assert rows["DeltaResult"]["increment_heldout_delta"].tolist() == [0.1] * 3
    assert rows["ProbeResult"]["accuracy"].tolist() == [0.5, 0.52, 0.54, 0.56]
    assert rows["PretrainResult"]["loss"].tolist() == [2.5]
    assert rows["JudgeResult"]["grammar"].dropna().tolist() == [7]


def test_without_pandas_the_error_says_so(make_scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ResultError, match="pip install pandas"):
        make_scan(1).to_frame()


def test_what_has_figures_plots_them(results):
    for result in results:
        assert isinstance(result, Shown)
        if not isinstance(result, Drawn):
            assert not hasattr(result, "plot")
            continue
        figure = result.plot()
        size = Image.open(io.BytesIO(figure._repr_png_())).size
        assert size == tuple(round(2 * 100 * inches) for inches in figure.get_size_inches())


def test_a_figure_is_asked_for_by_name(make_scan):
    scan = make_scan(3)
    assert scan.plot("tails").get_size_inches()[1] != scan.plot().get_size_inches()[1]
    with pytest.raises(ResultError, match=r"profile, norms, tails, spectra\), got 'profil'. Did you mean 'profile'"):
        scan.plot("profil")
    with pytest.raises(ResultError, match="got 'pairs'"):
        scan.plot("pairs")
    assert replace(scan, arrays={}).plot("tails")
