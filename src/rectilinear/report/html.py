"""The page: one file, no network, text from data escaped by the template engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rectilinear.core.spans import in_words
from rectilinear.report.carriers import classes
from rectilinear.report.heatmap import DEEP, SHADES, SHOWN, shade
from rectilinear.report.judged import sections
from rectilinear.report.plots import overlay, scan_figures
from rectilinear.report.shapes import Drawing
from rectilinear.report.svg import svg
from rectilinear.report.text import number, percent, plain, token, visible
from rectilinear.report.training import story
from rectilinear.results import (
    EvalResult,
    PruneResult,
    ScanResult,
    SweepResult,
    TextsResult,
    TokenResult,
    TokensResult,
    TracePoint,
    TraceResult,
)

TRIED_SHOWN = 60  # sets of layers, the largest and best first
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
        "Left: error of the linear map, token by token, on unseen text (the paper's Figure 9); the stronger the "
        "colour, the more tokens. Right: long bars mean that a few tokens carry the non-linearity.",
    ),
    "spectra": (
        "Shape of the stream",
        "Each layer's outputs as a cloud of points, sinks left out: the share of variance in its first direction, the "
        "number of directions in use, and the dimension that neighbouring points suggest.",
    ),
    "pairs": (
        "Spans of layers as one linear map",
        "Each cell is a span, from its first layer (down) to its last (across): the score on unseen ordinary tokens of "
        "one map fitted for the whole span, and of the maps of its single layers applied in turn. Where the right is "
        "paler than the left, seemingly linear layers add up to something that is not.",
    ),
    "sweep": (
        "What each layer less costs",
        "Perplexity of the judging text and divergence from the dense model over the number of layers changed (the "
        "paper's Figures 6 and 7); lower is better.",
    ),
    "trace": (
        "Linearity along training",
        "Means over layers against the training step (the paper's Figure 2), all checkpoints on the same tokens; the "
        "dots have the colours of the figure below.",
    ),
    "trace-layers": (
        "Layer by layer",
        "One line a checkpoint, from orange (the first) to blue (the last), on unseen text, or in-sample where nothing "
        "was held out.",
    ),
    "heatmap": (
        "Relative error, token by token",
        "Error of each layer's linear map over the norm of what the layer adds to the token; red diamonds mark sinks.",
    ),
    "overlay": (
        "The models over depth",
        "Score and increment score over normalised depth (the paper's Figure 1) on unseen text, or in-sample where "
        "nothing was held out; below, the norm ratio (Figure 3). Arrows mark scores below the axis.",
    ),
}


def scan_page(result: ScanResult, figures: dict[str, Drawing] | None = None) -> str:
    """Return the report of one scan as a single HTML document; figures are drawn where not given."""
    return _render(
        "report.html.j2",
        result=result,
        facts=result.provenance,
        summary=result.summary(),
        classes=classes(result),
        figures=_drawn(scan_figures(result) if figures is None else figures),
    )


def compare_page(
    results: Sequence[ScanResult], labels: Sequence[str], figures: dict[str, Drawing] | None = None
) -> str:
    """Return the comparison of several scans as a single HTML document; figures are drawn where not given."""
    return _render(
        "compare.html.j2",
        rows=[(label, result, result.summary()) for label, result in zip(labels, results, strict=True)],
        figures=_drawn({"overlay": overlay(results, labels)} if figures is None else figures),
    )


def texts_page(result: TextsResult, figures: dict[str, Drawing]) -> str:
    """Return the scans of several texts, and how far the maps of each carry, as a single HTML document."""
    rows = [(name, scan, scan.summary()) for name, scan in result.results.items()]
    return _render("texts.html.j2", result=result, rows=rows, what="text", figures=_drawn(figures))


def sweep_page(result: SweepResult, figures: dict[str, Drawing]) -> str:
    """Return a sweep as a single HTML document."""
    points = sorted(result.points, key=lambda p: len(p.remove))
    words = {p.remove: in_words(p.remove) for p in points}
    return _render(
        "sweep.html.j2", result=result, facts=result.provenance, points=points, words=words, figures=_drawn(figures)
    )


def prune_page(result: PruneResult, repaired: str) -> str:
    """Return what a cut removed and cost as a single HTML document; `repaired` says in words how it was made up for."""
    best = sorted(result.tried, key=lambda tried: (-len(tried[0]), tried[1]))[:TRIED_SHOWN]
    plan = result.plan
    return _render(
        "prune.html.j2",
        result=result,
        plan=plan,
        facts={**plan.calibration, **result.provenance},
        removed=in_words(plan.remove),
        repaired=repaired,
        tried=[(layers, verdict, in_words(layers)) for layers, verdict in best],
        figures=[],
    )


def eval_page(result: EvalResult) -> str:
    """Return an evaluation as a single HTML document."""
    return _render("eval.html.j2", result=result, facts=result.provenance, sections=sections(result), figures=[])


def tokens_page(result: TokensResult) -> str:
    """Return a prompt token by token as a single HTML document."""
    shown = result.tokens[-SHOWN:]
    return _render(
        "tokens.html.j2",
        result=result,
        facts=result.provenance,
        shown=shown,
        rows=[[_cell(one, layer) for layer in range(result.layers)] for one in shown],
        shade=shade,
        shades=SHADES,
        deep=DEEP,
        figures=[],
    )


def _cell(one: TokenResult, layer: int) -> dict[str, Any]:
    """Return one cell of the heat map: its tenth, and all that is known of the layer on the token, a line each."""
    logit, linear = one.logit_lens[layer + 1], one.linear_lens[layer + 1]
    known = (
        ("relative error", number(one.relative_error[layer])),
        ("bias of the map", number(one.bias_share[layer])),
        ("stream norm", number(one.stream_norm[layer], 2)),
        ("contribution norm", number(one.contribution_norm[layer], 2)),
        ("cosine", number(one.cosine[layer])),
        ("logit lens", f"{token(plain(logit.token, 24))} {number(logit.probability)}"),
        ("linear lens", f"{token(plain(linear.token, 24))} {number(linear.probability)}"),
    )
    head = f"{token(plain(one.token, 24))}, layer {layer}{', a sink' if one.sink[layer] else ''}"
    title = "\n".join([head, *(f"{name}: {value}" for name, value in known)])
    return {"shade": shade(one.relative_error[layer]), "sink": one.sink[layer], "title": title}


def trace_page(result: TraceResult, figures: dict[str, Drawing], reports: Mapping[int, str]) -> str:
    """Return a trace as a single HTML document; reports: by step, where the page of a scan is, if any."""
    return _render(
        "trace.html.j2",
        result=result,
        facts=result.provenance,
        story=story(result),
        frames=[_frame(point, reports.get(point.step)) for point in result.points],
        figures=_drawn(figures),
    )


def _frame(point: TracePoint, report: str | None) -> dict[str, Any]:
    """Return what the page shows of one checkpoint: a row of cells for every layer."""
    rows = []
    for layer in point.layers:
        cells = [str(layer.layer)]
        for score in (layer.increment, layer.score):
            known = score.heldout_low is not None
            interval = f"{number(score.heldout_low, 3)} – {number(score.heldout_high, 3)}" if known else "–"
            cells += [number(score.paper), number(score.heldout), interval, number(score.ordinary)]
        rows.append([*cells, number(layer.norm_ratio, 3), number(layer.cosine, 3), str(layer.sinks)])
    return {"step": point.step, "name": visible(point.name), "report": report, "rows": rows}


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


def _drawn(figures: dict[str, Drawing]) -> list[dict[str, Any]]:
    drawn = []
    for name, figure in figures.items():
        title, caption = CAPTIONS[name]
        drawn.append({"name": name, "title": title, "caption": caption, "svg": Markup(svg(figure, title, page=True))})
    return drawn
