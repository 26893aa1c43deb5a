"""The page: one file, no network, text from data escaped by the template engine."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rectilinear.report.draw import BLUE, INK, LINE, SOFT
from rectilinear.report.judged import sections
from rectilinear.report.plots import overlay, scan_figures
from rectilinear.report.text import number, percent, plain, token, visible
from rectilinear.results import EvalResult, ScanResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "profile": (
        "Linearity, layer by layer",
        "Grey: the paper's formula, all tokens, in-sample. Blue: maps judged on unseen text, with a 95 % interval. "
        "Orange: the same without sink tokens. Where grey is high and orange low, a few massive tokens make the layer "
        "look linear; where grey is high and blue low, there are too few tokens per dimension. Red diamonds mark "
        "layers with sinks, arrows scores below the axis.",
    ),
    "norms": (
        "How much a layer adds",
        "Top: how small a layer's contribution is beside the stream (the paper's Figure 3). Middle: how little it "
        "turns the stream. Bottom: the gap between the largest and the median norm is the work of sink tokens.",
    ),
    "tails": (
        "Where the error sits",
        "Left: error of the linear map, token by token, on unseen text (the paper's Figure 9); darker is more tokens. "
        "Right: long bars mean that a few tokens carry the non-linearity.",
    ),
    "spectra": (
        "Shape of the stream",
        "Each layer's outputs as a cloud of points, sinks left out: the share of variance in its first direction, the "
        "number of directions in use, and the dimension that neighbouring points suggest.",
    ),
    "overlay": (
        "The models over depth",
        "Score and increment score over normalised depth (the paper's Figure 1) on unseen text, or in-sample where "
        "nothing was held out; below, the norm ratio (Figure 3). Arrows mark scores below the axis.",
    ),
}


def scan_page(result: ScanResult, figures: dict[str, Figure] | None = None) -> str:
    """Return the report of one scan as a single HTML document; figures are drawn where not given."""
    return _render(
        "report.html.j2",
        result=result,
        facts=result.provenance,
        summary=result.summary(),
        figures=_drawn(scan_figures(result) if figures is None else figures),
    )


def compare_page(results: Sequence[ScanResult], labels: Sequence[str], figures: dict[str, Figure] | None = None) -> str:
    """Return the comparison of several scans as a single HTML document; figures are drawn where not given."""
    return _render(
        "compare.html.j2",
        rows=[(label, result, result.summary()) for label, result in zip(labels, results, strict=True)],
        figures=_drawn({"overlay": overlay(results, labels)} if figures is None else figures),
    )


def eval_page(result: EvalResult) -> str:
    """Return an evaluation as a single HTML document."""
    return _render("eval.html.j2", result=result, facts=result.provenance, sections=sections(result), figures=[])


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("rectilinear.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "plain": plain, "token": token, "visible": visible}
    return environment.get_template(template).render(**values)


def _drawn(figures: dict[str, Figure]) -> list[dict[str, Any]]:
    return [
        {"name": name, "title": CAPTIONS[name][0], "caption": CAPTIONS[name][1], "svg": Markup(_svg(name, figure))}
        for name, figure in figures.items()
    ]


def _svg(name: str, figure: Figure) -> str:
    """Return inline SVG: ids prefixed by name, since figures share a document; neutral colours left to the page."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True, dpi=110)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The metadata block holds nothing but addresses of vocabularies; inside HTML the namespaces are implied.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in ((INK, "ink"), (SOFT, "soft"), (LINE, "line"), (BLUE, "blue")):
        text = text.replace(colour.lower(), f"var(--{variable})")
    label = CAPTIONS[name][0]
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{label}"', text, count=1)
