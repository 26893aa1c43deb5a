"""A real browser for tests of pages: what it shows, what it says, and that it asks nobody for anything."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

PATIENCE = 120_000  # milliseconds: machines that run tests are shared
NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium():
    """Give a headless Chromium that is installed, none is ever fetched; skips the test, with the reason, without."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install 'rectilinear[dev]'")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)}")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


def hit(page, figure, row):
    return page.locator(f"#figure-{figure} .hit[data-row='{row}']").first


@dataclass
class Watched:
    """What a page did that a test should know of: requests beyond itself, complaints, dialogs."""

    page: object
    requests: list = field(default_factory=list)
    complaints: list = field(default_factory=list)

    def __post_init__(self):
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))

    def check(self):
        assert not self.complaints
        assert {url.split("#")[0] for url in self.requests} == {self.page.url.split("#")[0]}


# Text and what is behind it, colours blended as they are painted; hidden and switched-off text left out.
CONTRAST = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = element => {
    const colours = [];
    for (let at = element; at; at = at.parentElement) colours.unshift(rgba(getComputedStyle(at).backgroundColor));
    return colours.reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element), paper = behind(element);
    const ink = over(rgba(element instanceof SVGElement ? style.fill : style.color), paper);
    const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  return poor;
}"""
