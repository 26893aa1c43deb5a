"""Figures along training: scores against the step (Figure 2 of the paper), and layer by layer for every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.plots import DASHED, DOTTED, judged, score_limits, values_of
from rectilinear.report.scale import around
from rectilinear.report.shapes import BLUE, ORANGE, PINK, SOFT, Drawing
from rectilinear.report.text import number
from rectilinear.results import Score, TracePoint, TraceResult

KINDS = {"increment": "increment score (without residual)", "score": "score (with residual)"}
LABELS = 12  # checkpoints named in a legend
RAMP = (ORANGE, PINK, BLUE)  # from the first checkpoint to the last


def trace_figures(result: TraceResult) -> dict[str, Drawing]:
    """Return the figures of a trace by file name."""
    return {"trace": along(result.points), "trace-layers": by_layer(result.points)}


def story(result: TraceResult) -> str:
    """Return in a sentence how the mean increment score went from the first checkpoint to the last."""
    scores = {point.step: judged(point.increment) for point in result.points}
    known = {step: score for step, score in scores.items() if score is not None}
    if not known:
        return "No increment score is defined."
    first, last = min(known), max(known)
    said = [f"{number(known[step])} at step {step:,}" for step in dict.fromkeys((first, last))]
    for word, pick in (("highest", max), ("lowest", min)):
        step = pick(known, key=known.__getitem__)
        if step not in (first, last):
            said.append(f"{word} at step {step:,} ({number(known[step])})")
    where = "in-sample" if all(point.increment.heldout is None for point in result.points) else "on unseen text"
    return f"Mean increment score {where}: {', '.join(said)}."


def along(points: Sequence[TracePoint]) -> Drawing:
    """Draw the mean increment score and the mean score over training, logarithmic but for a place for step 0."""
    steps = np.array([point.step for point in points], dtype=float)
    after = steps[steps > 0]
    log = bool(len(after))
    zero = float(after.min()) / 3 if log and steps[0] == 0 else None
    x = steps if zero is None else np.where(steps > 0, steps, zero)
    panels = []
    for kind, title in KINDS.items():
        scores: list[Score] = [getattr(point, kind) for point in points]
        paper, heldout, ordinary, low, high = (
            values_of(getattr(score, name) for score in scores)
            for name in ("paper", "heldout", "ordinary", "heldout_low", "heldout_high")
        )
        curves = [
            Curve(x, paper, SOFT, "paper: all tokens, in-sample", marker="", dash=DASHED),
            Curve(x, heldout, BLUE, "held-out, 95 % interval", marker="", band=(low, high)),
            Curve(x, ordinary, ORANGE, "ordinary: held-out, no sinks", marker="", dash=DOTTED),
        ]
        main = paper if np.isnan(heldout).all() else heldout
        dots = [
            Curve(x[[i]], main[[i]], ramp(i, len(points)), lined=False, name=f"step-{point.step}")
            for i, point in enumerate(points)
        ]
        panels.append(Panel(f"Mean {title}", [*curves, *dots], score_limits([paper, heldout, ordinary])))
    legend = panels[0].curves[:3]
    return stacked(
        panels,
        "training step, logarithmic" if log else "training step",
        around([x], log=log),
        240,
        log=log,
        zero=zero,
        legend=legend,
    )


def by_layer(points: Sequence[TracePoint]) -> Drawing:
    """Draw both scores of every layer, one line a checkpoint, coloured from the first step to the last."""
    x = np.array([layer.layer for layer in points[0].layers])
    named = {round(i) for i in np.linspace(0, len(points) - 1, min(LABELS, len(points)))}
    panels = []
    for kind, title in KINDS.items():
        curves = [
            Curve(
                x,
                values_of(judged(getattr(layer, kind)) for layer in point.layers),
                ramp(i, len(points)),
                f"step {point.step:,}" if i in named else "",
                name=f"step-{point.step}",
            )
            for i, point in enumerate(points)
        ]
        panels.append(Panel(title.capitalize(), curves, score_limits([curve.y for curve in curves])))
    return stacked(panels, "layer", (x[0] - 0.5, x[-1] + 0.5), 240, legend=panels[0].curves)


def ramp(index: int, count: int) -> str:
    """Return the colour of checkpoint `index` of `count`."""
    at = index / max(count - 1, 1) * (len(RAMP) - 1)
    low = min(int(at), len(RAMP) - 2)
    start, stop = (tuple(bytes.fromhex(colour[1:])) for colour in RAMP[low : low + 2])
    return "#" + bytes(round(a + (at - low) * (b - a)) for a, b in zip(start, stop, strict=True)).hex()
