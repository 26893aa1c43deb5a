"""Figures of a scan and of several. Object API only: no global state, no display, matplotlib loaded on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rectilinear.report.draw import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    ORANGE,
    PINK,
    RED,
    SKY,
    SOFT,
    WIDTH,
    layer_axis,
    legend_above,
    legend_beside,
    line,
    log_scale,
    panels,
    score_limits,
    title_of,
    unframe,
    values_of,
)
from rectilinear.results import LayerResult, ScanResult, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def profile(result: ScanResult) -> Figure:
    """Draw score and increment score per layer: paper, held-out with its interval, ordinary; sinks marked."""
    figure, axes = panels(2, 6.4)
    x = _index(result)
    names = {"score": "Score  (with residual)", "increment": "Increment score  (without residual)"}
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        scores: list[Score] = [getattr(layer, name) for layer in result.layers]
        drawn = [values_of(getattr(s, kind) for s in scores) for kind in ("paper", "heldout", "ordinary")]
        low, high = values_of(s.heldout_low for s in scores), values_of(s.heldout_high for s in scores)
        score_limits(axis, drawn)
        axis.fill_between(x, low, high, color=BLUE, alpha=0.16, linewidth=0)
        line(axis, x, drawn[0], SOFT, "paper: all tokens, in-sample", style="--", marker="")
        line(axis, x, drawn[1], BLUE, "held-out, 95 % interval")
        line(axis, x, drawn[2], ORANGE, "ordinary: held-out, no sinks", marker="s")
        sinks = x[[layer.sinks.count > 0 for layer in result.layers]]
        axis.plot(
            sinks, np.full(len(sinks), 0.025), "D", color=RED, ms=4, transform=axis.get_xaxis_transform(), label="sinks"
        )
        title_of(axis, title)
    layer_axis(axes[-1], x)
    legend_above(figure, axes[0], 4)
    return figure


def norms(result: ScanResult) -> Figure:
    """Draw norm ratio (Figure 3 of the paper), adjacent cosine with its spread, and stream norms."""
    figure, axes = panels(3, 7.6)
    x = _index(result)
    ratio, cosine, spread, median, largest = (
        values_of(getattr(layer, name) for layer in result.layers)
        for name in ("norm_ratio", "cosine", "cosine_std", "stream_norm_median", "stream_norm_max")
    )
    line(axes[0], x, ratio, GREEN)
    title_of(axes[0], "Norm ratio  (contribution over stream)")
    axes[1].fill_between(x, cosine - spread, np.minimum(cosine + spread, 1), color=BLUE, alpha=0.16, linewidth=0)
    line(axes[1], x, cosine, BLUE)
    title_of(axes[1], "Adjacent cosine  (mean ± standard deviation)")
    line(axes[2], x, largest, RED, "largest", marker="^")
    line(axes[2], x, median, BLUE, "median")
    title_of(axes[2], "Stream norm  (after the layer)")
    for axis, values in ((axes[0], ratio), (axes[2], median)):
        if np.nanmax(values, initial=0.0) > 0:
            log_scale(axis)
    legend_beside(axes[2], 2)
    layer_axis(axes[-1], x)
    return figure


def tails(result: ScanResult) -> Figure:
    """Draw the per-token error histogram of every layer (Figure 9 of the paper) and the worst tokens' share."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH, min(max(3.2, 0.16 * len(result.layers) + 1.6), 9.0)), layout="constrained")
    rows = _index(result)
    if "error_histogram" in result.arrays:
        left, right = figure.subplots(1, 2, width_ratios=[2, 1], sharey=True)
        _error_map(figure, left, result)
    else:
        left = right = figure.subplots()
    for key, colour, label in (("share_5", SKY, "5 %"), ("share_1", BLUE, "1 %"), ("share_01", RED, "0.1 %")):
        shares = 100 * np.nan_to_num(values_of(getattr(layer.tails, key) for layer in result.layers))
        right.barh(rows, shares, color=colour, height=0.82, label=label)
    right.set(xlabel="% of the squared error", xlim=(0, 100))
    title_of(right, "Worst")
    legend_beside(right, 3)
    for axis in {left, right}:
        unframe(axis)
    left.set(ylabel="layer", ylim=(rows[0] - 0.5, rows[-1] + 0.5))
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def spectra(result: ScanResult) -> Figure:
    """Draw anisotropy, effective rank and intrinsic dimension of each layer's outputs."""
    figure, axes = panels(3, 6.4)
    x = _index(result)
    titles = {
        "anisotropy": "Anisotropy  (share of the first direction)",
        "effective_rank": "Effective rank",
        "intrinsic_dimension": "Intrinsic dimension  (TwoNN)",
    }
    for axis, (name, title), colour in zip(axes, titles.items(), (PINK, GREEN, BLUE), strict=True):
        line(axis, x, values_of(getattr(layer.spectrum, name) for layer in result.layers), colour)
        title_of(axis, title)
        axis.set_ylim(bottom=0)
    layer_axis(axes[-1], x)
    return figure


def overlay(results: Sequence[ScanResult], labels: Sequence[str]) -> Figure:
    """Draw several models over normalised depth: scores (Figure 1 of the paper) and norm ratio (Figure 3)."""
    figure, axes = panels(3, 8.6)
    parts: dict[str, Callable[[LayerResult], float | None]] = {
        "Score, held-out": lambda layer: judged(layer.score),
        "Increment score, held-out": lambda layer: judged(layer.increment),
        "Norm ratio  (contribution over stream)": lambda layer: layer.norm_ratio,
    }
    for axis, (title, pick) in zip(axes, parts.items(), strict=True):
        curves = [values_of(pick(layer) for layer in result.layers) for result in results]
        if axis is not axes[-1]:
            score_limits(axis, curves)
        for index, (result, label, values) in enumerate(zip(results, labels, curves, strict=True)):
            style = ("-", "--", ":")[index // len(CYCLE) % 3]
            line(axis, np.array(depth(result.layers)), values, CYCLE[index % len(CYCLE)], label, style=style)
        title_of(axis, title)
    log_scale(axes[-1])
    axes[-1].set(xlabel="normalised depth  (layer / last layer)", xlim=(-0.02, 1.02))
    legend_above(figure, axes[0], 3)
    return figure


FIGURES: dict[str, Callable[[ScanResult], Figure]] = {
    "profile": profile,
    "norms": norms,
    "tails": tails,
    "spectra": spectra,
}


def scan_figures(result: ScanResult) -> dict[str, Figure]:
    """Return the figures of one scan by file name; no tails where nothing was held out."""
    judged_tokens = any(layer.tails.median is not None for layer in result.layers)
    return {name: draw(result) for name, draw in FIGURES.items() if name != "tails" or judged_tokens}


def depth(layers: Sequence[LayerResult]) -> list[float]:
    """Return each layer's index over the last one's, 0 to 1."""
    return [layer.layer / max(layers[-1].layer, 1) for layer in layers]


def judged(score: Score) -> float | None:
    """Return the held-out score, the paper's where nothing was held out."""
    return score.paper if score.heldout is None else score.heldout


def _error_map(figure: Figure, axis: Axes, result: ScanResult) -> None:
    from matplotlib.colors import LogNorm

    counts, edges = result.arrays["error_histogram"], result.arrays["error_edges"]
    rows, used = _index(result), np.flatnonzero(counts.sum(0))
    if not len(used):
        return
    first, last = used[0], used[-1] + 1
    share = 100 * counts[:, first:last] / np.maximum(counts.sum(1, keepdims=True), 1)
    rarest = share[share > 0].min()
    # Rasterised: as vectors, a hundred layers would be megabytes of rectangles.
    mesh = axis.pcolormesh(
        edges[first : last + 1],
        np.append(rows - 0.5, rows[-1] + 0.5),
        np.where(share > 0, share, np.nan),
        norm=LogNorm(vmin=rarest / 4),  # a single token must still show against the paper
        cmap="Blues",
        rasterized=True,
    )
    for name, marker, label in (("median", "o", "median"), ("p99", "|", "99th percentile")):
        values = values_of(getattr(layer.tails, name) for layer in result.layers)
        axis.plot(values, rows, marker, color=RED, ms=4 if marker == "o" else 8, mew=1.4, ls="", label=label)
    bar = figure.colorbar(mesh, ax=axis, location="left", pad=0.02, aspect=40, format="%g")
    bar.set_label("% of the held-out tokens", color=INK)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0, labelcolor=INK, labelsize=9.5)
    axis.set(xscale="log", xlabel="L2 error of the linear map, one token")
    title_of(axis, "Errors, token by token")
    legend_beside(axis, 2)


def _index(result: ScanResult) -> np.ndarray:
    return np.array([layer.layer for layer in result.layers])
