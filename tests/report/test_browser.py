"""The pages in a real browser."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from browser import CONTRAST, PATIENCE, hit
from rectilinear.report.folder import load
from rectilinear.report.html import (
    compare_page,
    scan_page,
)
from rectilinear.report.text import flowing, number, plain, token, visible

FIGURES = ("profile", "norms", "tails", "spectra", "pairs")
IMAGES = Path(__file__).parents[2] / "docs" / "images"


@pytest.fixture
def scan(make_scan):
    """A scan of twelve layers with every part a page can show."""
    return with_spans(make_scan(12))


def with_spans(result):
    layers = len(result.layers)
    score = np.full((layers, layers), np.nan)
    for first, last in zip(*np.triu_indices(layers), strict=True):
        score[first, last] = 0.95 - 0.01 * first - 0.02 * (last - first)
    spans = {"span_score": score, "span_composed": score - 0.01, "span_increment": score}
    return replace(result, arrays={**result.arrays, **spans})


def shown_rows(page):
    return page.locator("#trigger-table tbody tr:visible")


def test_every_view_draws(show, scan):
    page = show(scan_page(scan))
    for name in FIGURES:
        box = page.locator(f"#figure-{name} svg").bounding_box()
        assert box["width"] > 800 and box["height"] > 300
    assert page.locator(".layer:visible").count() == 1
    assert page.locator(".layer:visible .bars svg").bounding_box()["height"] > 150
    assert page.locator("#passage span").count() == len(scan.passage.tokens)
    assert shown_rows(page).count() == len(scan.layers[0].triggers)
    assert page.locator("#layers ~ .wide tbody tr").first.is_visible()


def test_hovering_tells_the_values_of_the_table_behind(show, scan):
    page = show(scan_page(scan))
    tip = page.locator("#tip")
    assert tip.is_hidden()
    for name, wanted in (
        ("profile", ["layer 5", "0.9997", "0.783 – 0.833", "held-out"]),
        ("norms", ["norm ratio", "stream norm", "29000.0"]),
        ("tails", ["99th percentile", "45.00", "48.0 %"]),
        ("spectra", ["anisotropy", "0.1909"]),
    ):
        hit(page, name, 5).hover()
        assert all(words in tip.inner_text() for words in wanted), tip.inner_text()
        cells = page.locator(f"#figure-{name} .values tr[data-row='5'] td").all_text_contents()
        assert tip.locator("dd").all_text_contents() == cells
    page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_a_span_is_told_cell_by_cell(show, scan):
    page = show(scan_page(scan))
    strip = hit(page, "pairs", 3)
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 4.5 / 9, box["y"] + box["height"] / 2)
    assert "first layer 3" in page.locator("#tip").inner_text()
    assert page.locator("#tip dt").all_text_contents() == ["5 layers"]
    assert page.locator("#tip dd").all_text_contents() == ["0.840 / 0.830"]


def test_a_click_chooses_the_layer_in_all_views(show, scan):
    page = show(scan_page(scan))
    page.locator("#all-layers").check()
    assert shown_rows(page).count() == 12 * len(scan.layers[0].triggers)
    page.locator("#all-layers").uncheck()
    before = page.locator("#passage span").nth(4).evaluate("word => getComputedStyle(word).backgroundColor")
    hit(page, "tails", 7).click()
    assert page.evaluate("location.hash") == "#layer-7"
    for name in FIGURES:
        on = page.locator(f"#figure-{name} .hit.on").evaluate_all("hits => hits.map(hit => hit.dataset.row)")
        assert set(on) == {"7"}
    assert page.locator(".layer:visible").get_attribute("id") == "layer-7"
    assert f"Layer 7 · score {number(scan.layers[7].score.ordinary)}" in page.locator("#bar output").inner_text()
    assert page.locator(".layer:visible .keys code").all_text_contents() == [
        token(t["token"]) for t in scan.layers[7].sinks.tokens
    ]
    assert {row.split("\t")[0] for row in shown_rows(page).all_inner_texts()} == {"7"}
    after = page.locator("#passage span").nth(4).evaluate("word => getComputedStyle(word).backgroundColor")
    assert after != before
    assert page.locator("#passage .sink").count() == 1
    assert page.locator(".chosen").all_text_contents() == ["layer 7", "layer 7"]


def test_the_passage_has_the_shades_of_the_errors(show, scan):
    page = show(scan_page(scan), "#layer-11")
    errors = scan.arrays["passage_error"][11]
    assert (errors > 1).any() and (errors[:-1] < 1.3).any()
    words = page.locator("#passage span")
    above = words.evaluate_all("words => words.map(word => word.classList.contains('above'))")
    assert above == (errors > 1).tolist()
    words.nth(2).hover()
    assert f"in layer 11\n{errors[2]:.2f}" in page.locator("#tip").inner_text()
    page.goto(page.url.split("#")[0] + "#layer-0")
    assert words.nth(1).evaluate("word => word.style.getPropertyValue('--s')") == "0"  # no error: nothing was added


def test_keys_move_and_tell(show, scan):
    page = show(scan_page(scan), "#layer-4")
    tip = page.locator("#tip")
    hit(page, "profile", 4).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == "#layer-5"
    assert page.evaluate("document.activeElement.dataset.row") == "5"
    assert "layer 5" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    for key, row in (("Home", "0"), ("ArrowLeft", "0"), ("End", "11"), ("ArrowUp", "11"), ("ArrowDown", "10")):
        page.keyboard.press(key)
        assert page.evaluate("location.hash") == f"#layer-{row}"
    page.locator("#bar input").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == "#layer-11"
    page.get_by_label("One layer up").click()
    assert page.evaluate("location.hash") == "#layer-11"
    page.get_by_label("One layer down").press("Enter")
    assert page.evaluate("location.hash") == "#layer-10"
    page.locator("#passage span").first.focus()
    page.keyboard.press("ArrowRight")
    assert visible(scan.passage.tokens[1]) in tip.inner_text()


def test_only_one_place_of_a_figure_is_reached_by_tab(show, scan):
    page = show(scan_page(scan), "#layer-4")
    for name in FIGURES[:4]:
        assert page.locator(f"#figure-{name} .hit[tabindex='0']").count() == 1


def test_the_fragment_names_the_layer(show, scan):
    from playwright.sync_api import expect

    html = scan_page(scan)
    page = show(html, "#layer-9")
    assert page.locator(".layer:visible").get_attribute("id") == "layer-9"
    for link, layer in ((".notes a[href='#layer-11']", "layer-11"), ("table a[href='#layer-2']", "layer-2")):
        page.locator(link).click()
        expect(page.locator(f"#{layer} h3")).to_be_in_viewport(timeout=PATIENCE)
    page.locator("a[href='#definitions']").first.click()
    assert page.locator(".layer:visible").get_attribute("id") == "layer-2"
    assert show(html, "#layer-99").locator(".layer:visible").get_attribute("id") == "layer-3"  # the least linear


def test_triggers_are_searched_and_sorted(show, scan):
    page = show(scan_page(scan))
    page.locator("#search").fill("ALERT")
    assert page.locator("#found").inner_text() == "1 of 108"
    assert "<script>alert(1)</script>" in shown_rows(page).first.inner_text()
    page.locator("#all-layers").check()
    assert page.locator("#found").inner_text() == "12 of 108"
    page.locator("#search").fill("nowhere to be found")
    assert shown_rows(page).count() == 0
    page.locator("#search").fill("")
    page.locator("#trigger-table th button", has_text="document").click()
    documents = [int(row.split("\t")[5]) for row in shown_rows(page).all_inner_texts()]
    assert documents == sorted(documents, reverse=True)
    page.locator("#trigger-table th button", has_text="document").press("Enter")
    assert page.locator("#trigger-table th[aria-sort=ascending]").inner_text().startswith("document")
    documents = [int(row.split("\t")[5]) for row in shown_rows(page).all_inner_texts()]
    assert documents == sorted(documents)


def test_text_from_data_is_shown_as_text(show, make_scan):
    scan = make_scan(3)
    words = (
        "</script><img src=x>",
        "a" * 10_000,
        "\u05d0\u202e",
        "\ud83d",
        "\u0000",
        "'\"`",
        "\n",
        *scan.passage.tokens,
    )
    triggers = tuple({**scan.layers[0].triggers[0], "token": word, "before": word} for word in words)
    error, sink = np.full((3, len(words)), 0.5, dtype=np.float32), np.zeros((3, len(words)), dtype=bool)
    hostile = replace(
        scan,
        layers=tuple(replace(layer, triggers=triggers) for layer in scan.layers),
        passage=replace(scan.passage, tokens=words),
        arrays={**scan.arrays, "passage_error": error, "passage_sink": sink},
    )
    page = show(scan_page(hostile))
    assert page.locator("#passage span").all_text_contents() == [flowing(word, 40) for word in words]
    assert page.locator("#trigger-table tr:visible code").all_text_contents() == [
        token(plain(word, 32)) for word in words
    ]
    assert page.locator("img").count() == 0
    page.locator("#passage span").first.hover()
    assert "'</script><img src=x>'" in page.locator("#tip").inner_text()
    page.locator("#search").fill("<img")
    assert shown_rows(page).count() == 1


def test_it_is_whole_without_javascript(show, scan):
    page = show(scan_page(scan), java_script_enabled=False)
    assert page.locator("#bar, .ask, #theme").locator("visible=true").count() == 0
    assert page.locator(".layer:visible").get_attribute("id") == "layer-3"
    assert shown_rows(page).count() == 108
    assert page.locator("#passage .sink").count() == 1
    for name in FIGURES:
        assert page.locator(f"#figure-{name} svg").is_visible()
    page.locator("#figure-profile summary").click()
    assert "0.9997" in page.locator("#figure-profile tr[data-row='5']").inner_text()
    hit(page, "profile", 8).click()
    assert page.locator(".layer:visible").get_attribute("id") == "layer-8"


def test_light_dark_and_paper(show, scan):
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(255, 255, 255)", "rgb(17, 22, 28)"
    page = show(scan_page(scan), color_scheme="dark")
    assert page.evaluate(paper) == dark
    page.locator("#theme").click()
    assert page.evaluate(paper) == light
    page.locator("#theme").click()
    assert page.evaluate(paper) == dark
    page.emulate_media(media="print")
    assert page.evaluate(paper) == light
    assert page.locator("nav, #bar, .ask, #theme").locator("visible=true").count() == 0
    assert page.locator(".layer:visible").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show, scan, make_scan, scheme):
    for html in (scan_page(scan), compare_page([scan, make_scan(3)], ["one", "two"])):
        page = show(html, "#layer-11", color_scheme=scheme)
        page.locator("summary").evaluate_all("all => all.forEach(one => one.parentElement.open = true)")
        assert page.evaluate(CONTRAST) == []
    page.add_style_tag(content="p { color: #999 !important; } body { background: #bbb !important; }")
    assert page.evaluate(CONTRAST)  # the measure sees what is poor


def test_a_phone_scrolls_down_only_and_a_finger_is_answered(show, scan):
    page = show(scan_page(scan), viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for element in ("#bar output", "#passage", ".bars svg"):
        box = page.locator(element).locator("visible=true").first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    hit(page, "profile", 2).tap()
    assert "layer 2" in page.locator("#tip").inner_text()
    page.locator("h1").tap()
    assert page.locator("#tip").is_hidden()


def test_eighty_layers_stay_light_and_quick(show, make_scan):
    scan = with_spans(make_scan(80))
    texts = tuple(f" word{i}" for i in range(256))
    full = {**scan.layers[0].triggers[0], "before": " eight words before it, of usual length, in all"}
    kept = {
        "passage_error": np.random.default_rng(0).random((80, 256), dtype=np.float32),
        "passage_sink": np.eye(80, 256, dtype=bool),
    }
    html = scan_page(
        replace(
            scan,
            layers=tuple(replace(layer, triggers=(full,) * 20) for layer in scan.layers),
            passage=replace(scan.passage, tokens=texts),
            arrays={**scan.arrays, **kept},
        )
    )
    assert len(html.encode()) < 3_000_000
    page = show(html)
    spent = page.evaluate(
        """() => {
          const slider = document.querySelector("#bar input"), start = performance.now();
          for (let layer = 0; layer < 20; layer++) {
            slider.value = layer;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            document.body.getBoundingClientRect();
          }
          return (performance.now() - start) / 20;
        }"""
    )
    assert page.locator(".layer:visible").get_attribute("id") == "layer-19"
    assert spent < 500  # milliseconds a choice; on a slow machine, far fewer on a usual one


@pytest.mark.skipif(
    "RECTILINEAR_SCREENSHOTS" not in os.environ, reason="set RECTILINEAR_SCREENSHOTS to a scan's folder"
)
def test_pictures_for_the_docs(show):
    html = scan_page(load(os.environ["RECTILINEAR_SCREENSHOTS"]))
    light = show(html, "#layer-11", viewport={"width": 1280, "height": 1490})
    light.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
    hit(light, "profile", 11).hover(position={"x": 15, "y": 80})
    light.screenshot(path=IMAGES / "report-light.png")
    dark = show(html, "#layer-11", viewport={"width": 1280, "height": 1440}, color_scheme="dark")
    dark.locator("#layer").evaluate("layer => layer.scrollIntoView({ behavior: 'instant' })")
    dark.screenshot(path=IMAGES / "report-dark.png")
    phone = show(html, viewport={"width": 390, "height": 844}, device_scale_factor=2, is_mobile=True, has_touch=True)
    phone.locator("#passage-part").evaluate("part => part.scrollIntoView({ behavior: 'instant' })")
    phone.screenshot(path=IMAGES / "report-phone.png")
