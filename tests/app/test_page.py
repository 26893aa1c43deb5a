"""The page in a real browser: what is shown, what is pressed, and what is asked of the network."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from browser import chromium

pytest.importorskip("gradio", reason="no gradio here: pip install 'rectilinear[app]'")

WAIT = 60_000


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(folder, hostile, scans, browser):
    """A page of the tiny model, and of the hostile one."""
    from rectilinear.app.engine import Engine
    from rectilinear.app.page import serve

    page = serve(Engine([str(folder), str(hostile)], scans), port=free_port())
    yield page.local_url
    page.close(verbose=False)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def page(browser, address):
    """The page, opened and at rest; fails for errors in its console, and for requests to anywhere else."""
    opened = browser.new_page(viewport={"width": 1360, "height": 1000})
    wrong, asked = [], []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: wrong.append(dialog.message))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    opened.wait_for_selector("#changed .card", timeout=WAIT)
    yield opened
    opened.close()
    assert not wrong
    elsewhere = {
        url for url in asked if urlsplit(url).hostname != "127.0.0.1" and not url.startswith(("data:", "blob:"))
    }
    assert not elsewhere


def says(page, where, *words):
    """Wait until an element says all the words."""
    for word in words:
        page.locator(where, has_text=word).first.wait_for(timeout=WAIT)


def look(page, prompt):
    page.fill("#prompt textarea", prompt)
    page.click("#look")


def test_a_prompt_is_shown_token_by_token(page):
    look(page, "w5 w9 w70")
    says(page, "#heat", "'w70'")
    assert page.locator("#heat tbody tr").count() == 3
    assert page.locator("#heat tbody tr").first.locator("td").count() == 3 + 1  # layers and the median
    says(page, "#lens", "After 'w70'", "after layer 2")
    says(page, "#table", "Layer 1:", "Its worst tokens in the text of the scan")
    says(page, "#dense", "perplexity of the prompt")
    assert page.locator("#heat tr.picked").inner_text().startswith("'w70'")


def test_a_pressed_cell_picks_its_layer_and_token(page):
    look(page, "w5 w9 w70")
    says(page, "#lens", "After 'w70'")
    page.locator("#heat tbody tr").nth(1).locator("td").nth(2).click()
    says(page, "#table", "Layer 2:")
    says(page, "#lens", "After 'w9'")
    assert page.input_value("#layer input[type=number]") == "2"
    assert page.input_value("#token input[type=number]") == "1"
    page.wait_for_function("document.querySelectorAll('#heat tr.picked').length === 1")
    assert page.locator("#heat tr.picked th").inner_text() == "'w9'"
    assert page.locator("#heat thead th.picked").inner_text() == "2"
    assert page.locator("#lens tr.picked th").inner_text() == "after layer 2"


def test_sliders_work_by_keyboard_and_the_threshold_by_both(page):
    look(page, "w5 w9 w70")
    says(page, "#lens", "After 'w70'")
    page.locator("#layer input[type=range]").press("ArrowRight")
    says(page, "#table", "Layer 2:")
    least = page.locator("#least input[type=range]")
    least.press("Home")
    says(page, "#table", "error of 0.00 or more", "3 of 3 tokens")
    assert page.locator("#heat .faint").count() == 0
    least.press("End")
    says(page, "#table", "error of 2.00 or more", "lower the threshold")
    assert page.locator("#heat .faint").count() == 9


def test_layers_are_removed_or_linear_beside_the_dense_model(page):
    look(page, "w5 w9 w70 w33 w1 w9")
    says(page, "#changed", "Nothing changed yet")
    page.locator("#removed input").nth(1).check()
    says(page, "#changed", "layer 1 removed")
    gone = page.locator("#changed b").first.inner_text()
    page.locator("#linear input").nth(1).check()
    says(page, "#changed", "layer 1 linear")
    assert not page.locator("#removed input").nth(1).is_checked()  # it is either
    straight = page.locator("#changed b").first.inner_text()
    dense = page.locator("#dense b").first.inner_text()
    assert len({gone, straight, dense}) == 3
    assert "×" in page.locator("#changed .pair").inner_text()
    page.locator("#removed input").nth(0).check()
    says(page, "#changed", "layer 0 removed · layer 1 linear")


def test_another_model_has_other_maps_and_its_hostile_text_is_shown_as_text(page):
    page.click("#model input")
    page.locator("[role=option]").nth(1).click()
    page.wait_for_function("document.querySelector('#heat .heat') === null", timeout=WAIT)
    assert page.input_value("#maps input") == "other"
    prompt = "w50 <script>a(1)</script> <img/src=x/onerror=a(2)> {{value}} ${a(3)} \u202eevil \"'&"
    look(page, prompt)
    says(page, "#lens", "After")
    says(page, "#heat", "'<script>a(1)</script>'", "'<img/src=x/onerror=a(2)>'", "'{{value}}'", "'${a(3)}'")
    says(page, "#dense", "<script>a(1)</script>", "{{value}}", "${a(3)}", "\\u202eevil")
    page.locator("#least input[type=range]").press("Home")
    says(page, "#table", "'<script>a(1)</script>'")
    for where in ("#heat", "#dense", "#changed", "#table", "#lens"):
        assert page.locator(f"{where} script, {where} img").count() == 0
        assert "\u202e" not in page.locator(where).inner_text()


def test_mistakes_are_said_on_the_page_and_do_no_harm(page):
    for prompt, said in ((" ", "got an empty one"), ("w1 " * 600, "up to 512 tokens")):
        look(page, prompt)
        says(page, "#notice", said)
    look(page, "w3")
    says(page, "#lens", "After 'w3'")
    page.wait_for_function("document.querySelector('#notice .warn') === null")
    says(page, "#dense", "–")  # one token alone is not predicted


def test_a_model_without_maps_is_told_so_and_looked_at_when_asked(browser, folder, tmp_path, monkeypatch):
    from rectilinear.app import engine
    from rectilinear.app.page import serve

    monkeypatch.setattr(engine, "FIT_TOKENS", 512)
    served = serve(engine.Engine([str(folder)], tmp_path), port=free_port())
    page = browser.new_page()
    try:
        page.goto(served.local_url)
        says(page, "#notice", "no maps of", "Look fits some first")
        look(page, "w5 w9")
        says(page, "#lens", "After 'w9'")
        says(page, "#table", "Layer 1:")
    finally:
        page.close()
        served.close(verbose=False)


@pytest.mark.parametrize(
    "path", ["gradio_api/file=/etc/hostname", "gradio_api/upload", "gradio_api/call/ask", "monitoring"]
)
def test_the_server_hands_out_nothing_else(address, path):
    with pytest.raises(OSError, match="404"):
        urlopen(f"{address}{path}", timeout=30)
    with pytest.raises(OSError, match="403"):
        urlopen(Request(address, headers={"Host": "example.org"}), timeout=30)


@pytest.mark.real
def test_a_picture_for_the_docs(browser, data, tmp_path):
    """Made on request: RECTILINEAR_SCREENSHOTS names the folder."""
    target = os.environ.get("RECTILINEAR_SCREENSHOTS")
    if not target:
        pytest.skip("no picture asked for: set RECTILINEAR_SCREENSHOTS to a folder")
    import rectilinear
    from rectilinear.app.engine import Engine
    from rectilinear.app.page import serve
    from rectilinear.data.text import read_text

    model, tokenizer = rectilinear.load("demo")
    text = read_text(str(data / "wikitext2" / "wikitext2_valid.txt.gz"))
    scan = rectilinear.scan(model, tokenizer, text.documents(), tokens=16_384, keep_moments=tmp_path / "moments")
    scan.save(tmp_path / "scans" / "wikitext2")
    served = serve(Engine(["demo"], tmp_path / "scans"), port=free_port())
    page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.5)
    try:
        page.goto(served.local_url)
        says(page, "#changed", "Nothing changed yet")
        for layer in range(12, 18):
            page.locator("#linear input").nth(layer).check()
        page.locator("#heat tbody tr").nth(5).locator("td").nth(9).click()
        says(page, "#changed", "layers 12 to 17 linear")
        says(page, "#table", "Layer 9:")
        page.screenshot(path=Path(target) / "explore.png", full_page=True)
    finally:
        page.close()
        served.close(verbose=False)
