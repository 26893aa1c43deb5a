"""The page: one file, no network, text from data escaped by the template engine."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from rectilinear.report.terminal import number, visible
from rectilinear.results import ScanResult

CAPTIONS = {
    "profile": (
        "Linearity per layer. Dashed: the paper's formula, all tokens in-sample. Blue: maps judged on unseen "
        "documents, with a 95 % interval. Orange: the same without sink tokens. Where dashed and orange part, "
        "a few massive tokens make the layer look linear."
    ),
    "norms": (
        "How small a layer's contribution is beside the stream (the paper's Figure 3), how little it turns the stream, "
        "and how far the largest norm is from the median: the distance is the sinks."
    ),
    "tails": (
        "Error of the linear map, token by token, on unseen documents (the paper's Figure 9). A long tail to the "
        "right, and long bars, mean that few tokens carry the non-linearity."
    ),
    "spectra": "Shape of each layer's outputs: share of the first direction, dimensions in use, TwoNN dimension.",
    "overlay": "Scores and norm ratio over normalised depth (the paper's Figures 1 and 3).",
}


def scan_page(result: ScanResult, figures: dict[str, Figure]) -> str:
    """Return the report of one scan as a single HTML document."""
    return (
        _environment()
        .get_template("scan.html.j2")
        .render(result=result, facts=result.provenance, summary=result.summary(), figures=_drawn(figures))
    )


def compare_page(results: Sequence[ScanResult], labels: Sequence[str], figures: dict[str, Figure]) -> str:
    """Return the comparison of several scans as a single HTML document."""
    rows = [(label, result, result.summary()) for label, result in zip(labels, results, strict=True)]
    return _environment().get_template("compare.html.j2").render(rows=rows, figures=_drawn(figures))


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rectilinear.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    environment.filters["visible"] = visible
    return environment


def _drawn(figures: dict[str, Figure]) -> list[dict[str, Any]]:
    return [{"name": n, "caption": CAPTIONS[n], "svg": Markup(_svg(n, figure))} for n, figure in figures.items()]


def _svg(name: str, figure: Figure) -> str:
    """Return inline SVG; ids are salted by name, since all figures share one document."""
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=False)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The metadata block holds nothing but addresses of vocabularies.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{name}"', text, count=1)
