"""The page: one file, no network, text from data escaped by the template engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rectilinear.core.spans import in_words
from rectilinear.report.carriers import classes, strings, worst
from rectilinear.report.heatmap import SHADES, SHOWN, shade
from rectilinear.report.judged import sections
from rectilinear.report.layerview import layer_views, passage_data
from rectilinear.report.plots import overlay, scan_figures
from rectilinear.report.shapes import Drawing
from rectilinear.report.story import compared, finding, least_linear, notes
from rectilinear.report.svg import inline
from rectilinear.report.text import between, flowing, number, percent, plain, plus_minus, share, signed, token, visible
from rectilinear.report.training import story
from rectilinear.report.values import Values, carrier_values, overlay_values, scan_values
from rectilinear.results import (
    DeltaResult,
    EvalResult,
    FinetuneResult,
    HealResult,
    JudgeResult,
    ProbeResult,
    PruneResult,
    ReproductionResult,
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
    "carriers": (
        "Carriers of the error",
        "Above: of the squared error that each layer's map leaves on unseen text, the share of every kind of token. "
        "Below: that of the tokens that carry most in the mean layer; blank below 0.1 %, or where a token is not among "
        "the layer's twenty heaviest.",
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
    "delta": (
        "Before and after, layer by layer",
        "Top: score and increment score on unseen text, before (dashed) and after (solid). Below each, the change with "
        "its 95 % interval over the same held-out documents for both models; red diamonds mark layers where the "
        "interval of the held-out change excludes 0. One layer in twenty does so by chance alone.",
    ),
    "healing": (
        "Training, step by step",
        "The loss towards the dense model over the tokens read; of a long training, means over several steps.",
    ),
    "finetune": (
        "What fine-tuning does to each layer",
        "Change of increment score and score from before to after, mean over seeds with a standard deviation: by the "
        "paper's in-sample formula (dashed), on unseen text (blue), and without sink tokens (orange).",
    ),
    "probe": (
        "Accuracy along the stream",
        "What a linear probe reads off each position of the stream (the paper's Figure 5), with a 95 % interval over "
        "test examples. Below the dashed line it is no better than always saying the more frequent class.",
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
    values = scan_values(result)
    return _render(
        "report.html.j2",
        result=result,
        facts=result.provenance,
        summary=result.summary(),
        finding=finding(result),
        notes=notes(result),
        first=least_linear(result),
        views=layer_views(result, values),
        passage=passage_data(result),
        triggers=[(layer.layer, trigger) for layer in result.layers for trigger in layer.triggers],
        shades=SHADES,
        classes=classes(result),
        figures=_drawn(scan_figures(result) if figures is None else figures, values, link="#layer-"),
    )


def compare_page(
    results: Sequence[ScanResult], labels: Sequence[str], figures: dict[str, Drawing] | None = None
) -> str:
    """Return the comparison of several scans as a single HTML document; figures are drawn where not given."""
    return _render("compare.html.j2", **_overlaid(results, labels, figures))


def texts_page(result: TextsResult, figures: dict[str, Drawing]) -> str:
    """Return the scans of several texts, and how far the maps of each carry, as a single HTML document."""
    overlaid = _overlaid(list(result.results.values()), result.names, figures)
    return _render("texts.html.j2", result=result, what="text", **overlaid)


def _overlaid(
    results: Sequence[ScanResult], labels: Sequence[str], figures: dict[str, Drawing] | None
) -> dict[str, Any]:
    """Return what a page says of several scans, and their overlay with the values behind it."""
    drawn = {"overlay": overlay(results, labels)} if figures is None else figures
    return {
        "rows": [(label, result, result.summary()) for label, result in zip(labels, results, strict=True)],
        "finding": compared(results, labels),
        "figures": _drawn(drawn, {"overlay": overlay_values(results, labels)}),
    }


def carriers_page(result: ScanResult, figures: dict[str, Drawing]) -> str:
    """Return which tokens carry the error of a scan, and its worst ones, as a single HTML document."""
    triggers = [(layer.layer, trigger) for layer in result.layers for trigger in layer.triggers]
    return _render(
        "carriers.html.j2",
        facts=result.provenance,
        worst=list(worst(result)),
        classes=classes(result),
        strings=strings(result),
        triggers=triggers,
        figures=_drawn(figures, {"carriers": carrier_values(result)}),
    )


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


def heal_page(result: HealResult, repaired: str, figures: dict[str, Drawing]) -> str:
    """Return what a healing did as a single HTML document; `repaired` says in words how the cut was made up for."""
    return _render(
        "heal.html.j2",
        result=result,
        plan=result.plan,
        facts=result.provenance,
        removed=in_words(result.plan.remove),
        repaired=repaired,
        figures=_drawn(figures),
    )


def delta_page(result: DeltaResult, figures: dict[str, Drawing]) -> str:
    """Return what changed between two models as a single HTML document."""
    return _render("delta.html.j2", result=result, facts=result.provenance, figures=_drawn(figures))


def finetune_page(
    result: FinetuneResult, figures: dict[str, Drawing], labels: Mapping[str, str], losses: Mapping[int, str]
) -> str:
    """Return fine-tunings of one model as a single HTML document.

    labels: names of the three scores; losses: of each seed, in a few characters.
    """
    layers = {kind: result.layer_changes("increment", kind) for kind in labels}
    return _render(
        "finetune.html.j2",
        result=result,
        facts=result.provenance,
        labels=labels,
        accuracies=[plus_minus(spread, share) for spread in (result.before, result.after)],
        layers=layers,
        losses=losses,
        figures=_drawn(figures),
    )


def probe_page(result: ProbeResult, figures: dict[str, Drawing]) -> str:
    """Return linear probes of one model or several as a single HTML document."""
    return _render("probe.html.j2", result=result, facts=result.provenance, figures=_drawn(figures))


def reproduction_page(
    result: ReproductionResult,
    figures: dict[str, Drawing],
    counted: str,
    tables: Mapping[str, Sequence[tuple[str, str, str]]],
) -> str:
    """Return a reproduction as a single HTML document.

    counted: how many claims hold; tables: by part, rows of label, paper and measured.
    """
    captions = {part.name: (visible(part.title), f"After {visible(part.source)}.") for part in result.parts}
    return _render(
        "reproduction.html.j2",
        result=result,
        facts=result.provenance,
        counted=counted,
        tables=tables,
        drawn={one["name"]: one for one in _drawn(figures, captions=captions)},
        figures=[],
    )


def eval_page(result: EvalResult) -> str:
    """Return an evaluation as a single HTML document."""
    return _render("eval.html.j2", result=result, facts=result.provenance, sections=sections(result), figures=[])


def judging_page(result: JudgeResult) -> str:
    """Return completions and their grades as a single HTML document."""
    rows = [(c, [g for g in result.graded if (g.prompt, g.sample) == (c.prompt, c.sample)]) for c in result.completions]
    return _render("judge.html.j2", result=result, facts=result.provenance, rows=rows, figures=[])


def tokens_page(result: TokensResult) -> str:
    """Return a prompt token by token as a single HTML document."""
    shown = result.tokens[-SHOWN:]
    return _render(
        "tokens.html.j2",
        result=result,
        facts=result.provenance,
        shown=shown,
        rows=cells(shown),
        shade=shade,
        shades=SHADES,
        figures=[],
    )


def cells(tokens: Sequence[TokenResult]) -> list[list[dict[str, Any]]]:
    """Return the cells of the heat map, a list of layers for each token, for `prompt.html.j2`."""
    return [[_cell(one, layer) for layer in range(len(one.relative_error))] for one in tokens]


def _cell(one: TokenResult, layer: int) -> dict[str, Any]:
    """Return one cell of the heat map: its tenth, and all that is known of the layer on the token, a line each."""
    known = [
        ("relative error", number(one.relative_error[layer])),
        ("bias of the map", number(one.bias_share[layer])),
        ("stream norm", number(one.stream_norm[layer], 2)),
        ("contribution norm", number(one.contribution_norm[layer], 2)),
        ("cosine", number(one.cosine[layer])),
    ]
    for name, lens in (("logit lens", one.logit_lens), ("linear lens", one.linear_lens)):
        if len(lens) > 1:
            guess = lens[layer + 1]
            known.append((name, f"{token(plain(guess.token, 24))} {number(guess.probability)}"))
    head = f"{token(plain(one.token, 24))}, layer {layer}{', a sink' if one.sink[layer] else ''}"
    title = "\n".join([head, *(f"{name}: {value}" for name, value in known)])
    error = one.relative_error[layer]
    return {"error": error, "shade": shade(error), "sink": one.sink[layer], "title": title}


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


@cache
def environment(*packages: str) -> Environment:
    """Return the engine for the templates of `packages` and then of the report: all that comes from data is escaped."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "rectilinear.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (flowing, number, percent, plain, plus_minus, signed, token, visible)
    made.filters |= {one.__name__: one for one in filters}
    made.globals["between"] = between
    return made


def _render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)


def _drawn(
    figures: dict[str, Drawing],
    values: dict[str, Values] | None = None,
    link: str = "",
    captions: Mapping[str, tuple[str, str]] = CAPTIONS,
) -> list[dict[str, Any]]:
    """Return the figures of a page with captions and tables; their hits lead to `link` and the row's number."""
    drawn = []
    for name, figure in figures.items():
        title, caption = captions[name]
        picture = Markup(inline(figure, title, link))
        behind = (values or {}).get(name)
        drawn.append({"name": name, "title": title, "caption": caption, "svg": picture, "behind": behind})
    return drawn
