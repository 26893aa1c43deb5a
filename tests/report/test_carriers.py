import json
from dataclasses import replace

import pytest

from browser import chromium
from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.carriermap import STACK, carrier_map
from rectilinear.report.carriers import classes, document, save_carriers, shares, strings
from rectilinear.report.html import carriers_page
from rectilinear.report.plots import scan_figures
from rectilinear.report.shapes import Area

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'&",
    "\u202eevil",
    "😀",
    "\ud800",
    "</script>",
    "\x1b[31m",
    "a\nb",
    "w" * 9999,
)
KINDS = ("word start", "punctuation", "rare")


def carrying(scan):
    """Return the scan with carriers: in every layer sinks, kinds and tokens, two of them alike to read."""
    layers = []
    for layer in scan.layers:
        at = layer.layer
        kinds = [{"class": name, "tokens": 0.3, "error": 0.2 + 0.01 * at, "tail_index": 1.0 + at} for name in KINDS]
        sink = {"class": "sink", "tokens": 0.01, "error": 0.6 - 0.02 * at, "tail_index": None}
        texts = [*HOSTILE, "alike", "alike"] if at % 2 else HOSTILE
        tokens = [{"token": t, "count": 7, "error": 0.2 / (place + 1 + at)} for place, t in enumerate(texts)]
        layers.append(replace(layer, error_classes=(*kinds, sink), error_tokens=tuple(tokens)))
    return replace(scan, layers=tuple(layers))


def test_rows_are_means_over_layers_and_tokens_that_read_alike_are_one(make_scan):
    result = carrying(make_scan(4))
    rows = {row.name: row for row in classes(result)}
    assert next(iter(rows)) == "sink" and rows["sink"].tail_index is None
    assert rows["punctuation"].tail_index == pytest.approx(2.5)  # the median of 1 to 4
    assert (rows["punctuation"].mean, rows["punctuation"].most, rows["punctuation"].layer) == (
        pytest.approx(0.215),
        pytest.approx(0.23),
        3,
    )
    alike = next(row for row in strings(result) if row.name == "alike")
    errors = [0.2 / (10 + at) + 0.2 / (11 + at) for at in (1, 3)]
    assert (
        alike.tokens == 14 and alike.most == pytest.approx(errors[0]) and alike.mean == pytest.approx(sum(errors) / 4)
    )
    assert shares(result, "error_tokens", "token")["alike"] == pytest.approx({1: errors[0], 3: errors[1]})


def test_a_scan_made_before_tail_indices_were_kept_is_still_shown(make_scan):
    result = carrying(make_scan(2))
    old = replace(
        result,
        layers=tuple(
            replace(
                layer,
                error_classes=tuple(
                    {k: v for k, v in item.items() if k != "tail_index"} for item in layer.error_classes
                ),
            )
            for layer in result.layers
        ),
    )
    assert {row.tail_index for row in classes(old)} == {None}
    assert carriers_page(old, {"carriers": carrier_map(old)})


@pytest.mark.parametrize("layers", [1, 12, 30])
def test_the_drawing_shows_shares_as_heights_and_stays_on_its_axes(make_scan, layers):
    drawing = carrier_map(carrying(make_scan(layers)))
    areas = [shape for shape in drawing.shapes if isinstance(shape, Area) and shape.crisp]
    sink, words, punctuation = areas[:3]
    for at in range(layers):
        heights = [area.shapes[at][2][1] - area.shapes[at][0][1] for area in (sink, words, punctuation)]
        assert [height / STACK for height in heights] == pytest.approx(
            [0.6 - 0.02 * at, 0.2 + 0.01 * at, 0.2 + 0.01 * at]
        )
        assert sink.shapes[at][0] == words.shapes[at][3] and words.shapes[at][0] == punctuation.shapes[at][3]
    cells = [points for area in areas[3:] for points in area.shapes if points[1][0] - points[0][0] != 14]  # but the key
    first, last = sink.shapes[0], sink.shapes[-1]
    wide = (last[1][0] - first[0][0]) / (layers - 0.16)
    for points in cells:
        at = (points[0][0] - first[0][0]) / wide + 0.08
        assert at == pytest.approx(round(at), abs=1e-6) and 0 <= round(at) < layers


def test_a_scan_draws_its_carriers_where_it_knows_them(make_scan):
    assert "carriers" in scan_figures(carrying(make_scan(2)))
    assert "carriers" not in scan_figures(make_scan(2))


def test_the_page_escapes_what_comes_from_data_and_loads_nothing(make_scan):
    result = carrying(make_scan(3))
    page = carriers_page(result, {"carriers": carrier_map(result)})
    seen = Seen(page)
    assert seen.tags.count("script") == 2 and not {"img", "i"} & set(seen.tags)
    assert not {"\u202e", "\x1b", "\ud800"} & set(page)
    assert "&lt;script&gt;alert(1)" in page and "<script>alert" not in page
    assert len(page) < 300_000  # the long token is cut
    assert len(seen.ids) == len(set(seen.ids))
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.ids)


def test_the_worst_tokens_are_searched_and_sorted_in_a_browser(make_scan, tmp_path):
    result = carrying(make_scan(3))
    (tmp_path / "page.html").write_text(carriers_page(result, {"carriers": carrier_map(result)}))
    wrong, asked = [], []
    with chromium() as browser:
        page = browser.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "page.html").as_uri())
        rows = page.locator("#worst tbody tr:visible")
        assert rows.count() == 3 * 9
        page.fill("input[type=search]", "<SCRIPT>")
        assert rows.count() == 3 and page.locator(".search output").inner_text() == "3 of 27"
        page.fill("input[type=search]", "no such token")
        assert rows.count() == 0
        page.fill("input[type=search]", "")
        assert rows.count() == 27 and page.locator(".search output").inner_text() == ""
        page.get_by_role("button", name="error", exact=True).last.click()
        errors = [float(text) for text in page.locator("#worst tbody tr td:nth-child(3)").all_inner_texts()]
        assert errors == sorted(errors, reverse=True) and len(set(errors)) > 1
    assert not wrong and len(asked) == 1


def test_the_folder_is_whole_and_replaced_only_by_force(make_scan, tmp_path):
    result = carrying(make_scan(3))
    out = save_carriers(result, tmp_path / "out")
    names = {"carriers.json", "carriers.html", "carriers.svg", "carriers.png", "SHA256SUMS"}
    assert {path.name for path in out.iterdir()} == names
    found = json.loads((out / "carriers.json").read_text())
    assert found == document(result) and found["classes"][0]["name"] == "sink"
    with pytest.raises(ResultError, match="--force"):
        save_carriers(result, out)
    save_carriers(result, out, force=True)
