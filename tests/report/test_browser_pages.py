"""Pages beside that of one whole scan, in a real browser."""

from dataclasses import replace

from browser import CONTRAST, hit
from rectilinear.report.healing import healing_figure
from rectilinear.report.html import (
    compare_page,
    eval_page,
    heal_page,
    prune_page,
    scan_page,
    sweep_page,
    texts_page,
    tokens_page,
)
from rectilinear.report.plots import overlay
from rectilinear.report.sweep import sweep_figure


def test_the_other_pages_are_quiet_and_readable_too(show, results):
    _, texts, sweep, prompt, evaluation, cut, healed, *_ = results
    pages = (
        texts_page(texts, {"overlay": overlay(list(texts.results.values()), texts.names)}),
        sweep_page(sweep, {"sweep": sweep_figure(sweep)}),
        tokens_page(prompt),
        eval_page(evaluation),
        prune_page(cut, "Nothing was done."),
        heal_page(healed, "Nothing was done.", {"healing": healing_figure(healed)}),
    )
    for html in pages:
        page = show(html, color_scheme="dark")
        assert page.evaluate(CONTRAST) == []
        page.locator("#theme").click()
        assert page.evaluate(CONTRAST) == []


def test_scans_without_some_of_it_have_pages_without(show, make_scan):
    old = show(scan_page(replace(make_scan(5), passage=None)))
    assert old.locator("#passage").count() == 0
    assert old.locator("#trigger-table").count() == 1
    bare = show(scan_page(make_scan(1, heldout=False)))
    assert bare.locator("#trigger-table, #passage, .bars").count() == 0
    assert "text they were fitted on" in bare.locator(".finding").inner_text()
    hit(bare, "profile", 0).hover()
    assert "0.9700" in bare.locator("#tip").inner_text()


def test_models_are_compared_by_hovering_and_hidden_by_their_names(show, make_scan):
    names = ["first <i>", "second", "third"]
    page = show(compare_page([make_scan(12), make_scan(30), make_scan(4, heldout=False)], names))
    hit(page, "overlay", 10).hover()
    tip = page.locator("#tip").inner_text()
    assert all(name in tip for name in ["depth 0.34", *names])
    assert page.locator("#tip dl").first.locator("dd").first.inner_text() == "4"  # of twelve layers the nearest
    series = page.locator("#figure-overlay .series[data-series='1']")
    assert series.first.is_visible()
    key = page.get_by_role("button", name="second")
    key.click()
    assert key.get_attribute("aria-pressed") == "false"
    assert not any(part.is_visible() for part in series.all())
    key.press("Enter")
    assert series.first.is_visible()
    assert page.locator("#figure-overlay .series[data-series='0']").first.is_visible()
    hit(page, "overlay", 0).focus()
    page.keyboard.press("ArrowRight")
    assert "depth 0.03" in page.locator("#tip").inner_text()
    assert page.evaluate("location.hash") == ""


def test_numbers_sort_by_value_thousands_too(show, make_scan):
    scans = [make_scan(2), make_scan(2), make_scan(2)]
    for scan, tokens in zip(scans, (18_432, 2_000_000, 950), strict=True):
        scan.provenance["tokens"] = tokens
    page = show(compare_page(scans, ["a", "b", "c"]))
    page.locator("th button", has_text="tokens").first.click()
    rows = page.locator("table").first.locator("tbody th").all_text_contents()
    assert [row for row in rows if row in "abc"][-3:] == ["b", "a", "c"]
