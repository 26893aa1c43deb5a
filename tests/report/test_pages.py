import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.compare import compare, save_compare
from rectilinear.report.html import compare_page, scan_page
from rectilinear.report.plots import FIGURES, depth, scan_figures
from rectilinear.report.terminal import compare_table, layers_table, number, sparkline
from rectilinear.report.text import visible
from rectilinear.results import SubmoduleScore

LABELS = ["first <i>", "[red]second", "third $x$ \ud800"]


@pytest.fixture
def pages(make_scan):
    scans = [make_scan(12), make_scan(30), make_scan(1, heldout=False)]
    return [scan_page(scans[0]), compare_page(scans, LABELS), scan_page(scans[2])]


def test_pages_load_nothing_from_the_network(pages):
    for page in pages:
        assert all(link.startswith(("#", "data:image/png")) for link in Seen(page).links)
        assert not re.search(r"@import|url\((?!#)", page)
        assert len(page.encode()) < 1_500_000


def test_links_inside_a_page_lead_somewhere_and_ids_are_unique(pages):
    for page in pages:
        seen = Seen(page)
        assert len(seen.ids) == len(set(seen.ids))
        assert {link[1:] for link in seen.links if link.startswith("#")} <= set(seen.ids)


def test_text_from_data_is_escaped(pages):
    for page, scripts in zip(pages, (2, 1, 1), strict=True):  # the first page has data as well
        tags = Seen(page).tags
        assert tags.count("script") == scripts
        assert not {"img", "i"} & set(tags)
        assert "\u202e" not in page
        assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in pages[0]
    assert r"\ud800" in pages[0]


def test_submodules_have_their_own_table(make_scan):
    result = make_scan(1)
    layer = result.layers[0]
    parts = (SubmoduleScore("mlp", layer.score, 0.2),)
    page = scan_page(replace(result, layers=(replace(layer, submodules=parts),)))
    assert "Attention and MLP apart" in page
    assert "Attention and MLP apart" not in scan_page(result)


def test_figures_are_drawn_for_any_depth_and_without_arrays(make_scan):
    assert list(scan_figures(make_scan(1))) == list(FIGURES)
    assert "tails" not in scan_figures(make_scan(1, heldout=False))
    assert len(scan_figures(replace(make_scan(50), arrays={}))) == 4


def test_gaps_are_drawn_and_printed(make_scan):
    result = make_scan(3)
    first = replace(result.layers[0], norm_ratio=None, cosine=None, stream_norm_median=None)
    holes = replace(result, layers=(first, *result.layers[1:]))
    assert "–" in printed(layers_table(holes), 100)
    assert "–" in scan_page(holes)


def test_the_terminal_table_fits_and_drops_columns(make_scan):
    for width, column in ((100, "worst 1 %"), (90, "cosine"), (80, "ratio")):
        text = printed(layers_table(make_scan()), width)
        assert all(len(line) <= width for line in text.splitlines())
        assert column in text
    assert "cosine" not in text
    assert "0.9997" in text and "◆ 61" in text
    assert "org/tiny [bold]<b>" in text
    assert "\x1b" not in text


def test_a_score_below_one_never_prints_as_one():
    assert f"{0.99999:.4f}" == "1.0000"
    assert number(0.99999) == "0.9999"
    assert [number(v) for v in (1.0, None, 0.99965, -1.5, -12345.678)] == ["1.0000", "–", "0.9997", "-1.5000", "-12346"]


def test_sparkline_is_as_long_as_the_values_and_never_longer_than_asked():
    assert sparkline([0.0, None, 0.5, 1.0, -3.0]) == "▁·▅█▁"
    assert len(sparkline([0.5] * 200)) == 60


def test_control_characters_become_visible():
    assert visible("a\n\x1b\u202e\ud800😀") == "a\\n\\x1b\\u202e\\ud800😀"


def test_models_of_different_depth_are_compared(make_scan, tmp_path):
    scans = [make_scan(12), make_scan(30), make_scan(1, heldout=False)]
    document = compare(scans, LABELS)
    first, second, third = document["models"]
    assert first["delta"]["score"]["paper"] == 0.0
    assert second["delta"]["increment"]["heldout"] == pytest.approx(
        scans[1].summary()["increment"]["heldout"] - scans[0].summary()["increment"]["heldout"]
    )
    assert third["delta"]["score"]["heldout"] is None
    assert depth(scans[1].layers)[0] == 0.0 and depth(scans[1].layers)[-1] == 1.0
    assert len(second["curves"]["depth"]) == 30
    assert "second" in printed(compare_table(scans, LABELS), 100)
    out = save_compare(scans, LABELS, tmp_path / "both")
    names = {"compare.json", "compare.csv", "compare.html", "overlay.svg"}
    assert {path.name for path in out.rglob("*.*")} == names
    with pytest.raises(ResultError, match="--force"):
        save_compare(scans, LABELS, out)
    assert save_compare(scans, LABELS, out, force=True, png=True) == out
    assert {path.name for path in out.rglob("*.*")} == names | {"overlay.png"}


def printed(table, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()
