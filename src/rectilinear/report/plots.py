"""Figures of a scan and of several. Object API only: no global state, no display, matplotlib loaded on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rectilinear.report.text import plain
from rectilinear.results import LayerResult, ScanResult, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by every common colour vision.
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
# Neutral colours; the page swaps exactly these for its own, so that figures follow light and dark.
INK, SOFT, LINE = "#24292f", "#6b7480", "#e1e5ea"
WIDTH = 9.0  # inches; every figure shares it, so that type has one size on a page
FLOOR = -0.25  # scores below are drawn as arrows at the edge: one bad layer must not flatten the rest
NAMED = 40  # layers up to which each marker is drawn


def profile(result: ScanResult) -> Figure:
    """Draw score and increment score per layer: paper, held-out with its interval, ordinary; sinks marked."""
    figure, axes = _panels(2, 6.4)
    x = _index(result)
    names = {"score": "Score  (with residual)", "increment": "Increment score  (without residual)"}
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        scores: list[Score] = [getattr(layer, name) for layer in result.layers]
        drawn = [_values(getattr(s, kind) for s in scores) for kind in ("paper", "heldout", "ordinary")]
        low, high = _values(s.heldout_low for s in scores), _values(s.heldout_high for s in scores)
        _score_limits(axis, drawn)
        axis.fill_between(x, low, high, color=BLUE, alpha=0.16, linewidth=0)
        _line(axis, x, drawn[0], SOFT, "paper: all tokens, in-sample", style="--", marker="")
        _line(axis, x, drawn[1], BLUE, "held-out, 95 % interval")
        _line(axis, x, drawn[2], ORANGE, "ordinary: held-out, no sinks", marker="s")
        sinks = x[[layer.sinks.count > 0 for layer in result.layers]]
        axis.plot(
            sinks, np.full(len(sinks), 0.025), "D", color=RED, ms=4, transform=axis.get_xaxis_transform(), label="sinks"
        )
        _title(axis, title)
    _layer_axis(axes[-1], x)
    _legend(figure, axes[0], 4)
    return figure


def norms(result: ScanResult) -> Figure:
    """Draw norm ratio (Figure 3 of the paper), adjacent cosine with its spread, and stream norms."""
    figure, axes = _panels(3, 7.6)
    x = _index(result)
    ratio, cosine, spread, median, largest = (
        _values(getattr(layer, name) for layer in result.layers)
        for name in ("norm_ratio", "cosine", "cosine_std", "stream_norm_median", "stream_norm_max")
    )
    _line(axes[0], x, ratio, GREEN)
    _title(axes[0], "Norm ratio  (contribution over stream)")
    axes[1].fill_between(x, cosine - spread, np.minimum(cosine + spread, 1), color=BLUE, alpha=0.16, linewidth=0)
    _line(axes[1], x, cosine, BLUE)
    _title(axes[1], "Adjacent cosine  (mean ± standard deviation)")
    _line(axes[2], x, largest, RED, "largest", marker="^")
    _line(axes[2], x, median, BLUE, "median")
    _title(axes[2], "Stream norm  (after the layer)")
    for axis, values in ((axes[0], ratio), (axes[2], median)):
        if np.nanmax(values, initial=0.0) > 0:
            axis.set_yscale("log")
    _inner_legend(axes[2], 2)
    _layer_axis(axes[-1], x)
    return figure


def tails(result: ScanResult) -> Figure:
    """Draw the per-token error histogram of every layer (Figure 9 of the paper) and the worst tokens' share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, min(max(3.2, 0.16 * len(result.layers) + 1.6), 9.0)), layout="constrained")
    rows = _index(result)
    if "error_histogram" in result.arrays:
        left, right = figure.subplots(1, 2, width_ratios=[2, 1], sharey=True)
        _error_map(figure, left, result)
    else:
        left = right = figure.subplots()
    for key, colour, label in (("share_5", SKY, "5 %"), ("share_1", BLUE, "1 %"), ("share_01", RED, "0.1 %")):
        shares = 100 * np.nan_to_num(_values(getattr(layer.tails, key) for layer in result.layers))
        right.barh(rows, shares, color=colour, height=0.82, label=label)
    right.set(xlabel="% of the squared error", xlim=(0, 100))
    _title(right, "Carried by the worst")
    _inner_legend(right, 3)
    for axis in figure.axes:
        _plain(axis)
    left.set(ylabel="layer", ylim=(rows[0] - 0.5, rows[-1] + 0.5))
    left.yaxis.get_major_locator().set_params(integer=True)
    return figure


def spectra(result: ScanResult) -> Figure:
    """Draw anisotropy, effective rank and intrinsic dimension of each layer's outputs."""
    figure, axes = _panels(3, 6.4)
    x = _index(result)
    titles = {
        "anisotropy": "Anisotropy  (share of the first direction)",
        "effective_rank": "Effective rank",
        "intrinsic_dimension": "Intrinsic dimension  (TwoNN)",
    }
    for axis, (name, title), colour in zip(axes, titles.items(), (PINK, GREEN, BLUE), strict=True):
        _line(axis, x, _values(getattr(layer.spectrum, name) for layer in result.layers), colour)
        _title(axis, title)
        axis.set_ylim(bottom=0)
    _layer_axis(axes[-1], x)
    return figure


def overlay(results: Sequence[ScanResult], labels: Sequence[str]) -> Figure:
    """Draw several models over normalised depth: scores (Figure 1 of the paper) and norm ratio (Figure 3)."""
    figure, axes = _panels(3, 8.6)
    parts: dict[str, Callable[[LayerResult], float | None]] = {
        "Score, held-out": lambda layer: judged(layer.score),
        "Increment score, held-out": lambda layer: judged(layer.increment),
        "Norm ratio  (contribution over stream)": lambda layer: layer.norm_ratio,
    }
    for axis, (title, pick) in zip(axes, parts.items(), strict=True):
        curves = [_values(pick(layer) for layer in result.layers) for result in results]
        if axis is not axes[-1]:
            _score_limits(axis, curves)
        for index, (result, label, values) in enumerate(zip(results, labels, curves, strict=True)):
            style = ("-", "--", ":")[index // len(CYCLE) % 3]
            _line(axis, np.array(depth(result.layers)), values, CYCLE[index % len(CYCLE)], label, style=style)
        _title(axis, title)
    axes[-1].set(yscale="log", xlabel="normalised depth  (layer / last layer)", xlim=(-0.02, 1.02))
    _legend(figure, axes[0], 3)
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
    counts, edges = result.arrays["error_histogram"], result.arrays["error_edges"]
    rows, used = _index(result), np.flatnonzero(counts.sum(0))
    if not len(used):
        return
    first, last = used[0], used[-1] + 1
    share = 100 * counts[:, first:last] / np.maximum(counts.sum(1, keepdims=True), 1)
    # Rasterised: as vectors, a hundred layers would be megabytes of rectangles.
    mesh = axis.pcolormesh(
        edges[first : last + 1],
        np.append(rows - 0.5, rows[-1] + 0.5),
        np.where(share > 0, share, np.nan),
        norm="log",
        cmap="cividis_r",
        rasterized=True,
    )
    for name, marker, label in (("median", "o", "median"), ("p99", "|", "99th percentile")):
        values = _values(getattr(layer.tails, name) for layer in result.layers)
        axis.plot(values, rows, marker, color=RED, ms=4 if marker == "o" else 8, mew=1.4, ls="", label=label)
    bar = figure.colorbar(mesh, ax=axis, location="left", pad=0.02, aspect=40)
    bar.set_label("% of the held-out tokens", color=INK)
    bar.outline.set_visible(False)
    axis.set(xscale="log", xlabel="L2 error of the linear map, one token")
    _title(axis, "Errors, token by token")
    _inner_legend(axis, 2)


def _values(values: Iterable[float | None]) -> np.ndarray:
    """Return floats with gaps (NaN) for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _index(result: ScanResult) -> np.ndarray:
    return np.array([layer.layer for layer in result.layers])


def _score_limits(axis: Axes, curves: Sequence[np.ndarray]) -> None:
    known = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    low = max(low, FLOOR)
    margin = max(0.08 * (high - low), 0.01)
    axis.set_ylim(low - 1.5 * margin, min(high, 1.0) + margin)


def _line(
    axis: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str = "", *, style: str = "-", marker: str = "o"
) -> None:
    marker = marker if len(x) <= NAMED or len(x) == 1 else ""
    if len(x) == 1:
        marker = marker or "_"
    # `$` starts mathematics in matplotlib; a label is data.
    text = plain(label).replace("$", r"\$")
    axis.plot(x, y, style, marker=marker, color=colour, ms=4, lw=1.6, label=text or "_nolegend_")
    below = y < axis.get_ylim()[0]
    if axis.get_autoscaley_on() is False and below.any():
        bottom = np.full(below.sum(), 0.06)
        axis.plot(x[below], bottom, "v", color=colour, ms=6, transform=axis.get_xaxis_transform())


def _panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(count, 1, sharex=True)
    for axis in axes:
        _plain(axis)
        axis.grid(axis="y", color=LINE, linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(SOFT)
    axis.tick_params(which="both", color=SOFT, labelcolor=INK, length=0, labelsize=9.5)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)


def _layer_axis(axis: Axes, x: np.ndarray) -> None:
    axis.set(xlabel="layer", xlim=(x[0] - 0.5, x[-1] + 0.5))
    axis.xaxis.get_major_locator().set_params(integer=True)


def _title(axis: Axes, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=10.5, color=INK, fontweight="bold")


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9.5, labelcolor=INK)


def _inner_legend(axis: Axes, columns: int) -> None:
    """Put a legend on the line of the title, right: never on the data."""
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.985),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.0,
        columnspacing=1.0,
        handletextpad=0.4,
        borderaxespad=0.0,
    )
