"""Figures of a scan and of several. Built on the object API: no global state, no display."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rectilinear.results import LayerResult, ScanResult, Score

# Okabe and Ito's palette, told apart by every common colour vision.
BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#777777"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY)


def scan_figures(result: ScanResult) -> dict[str, Figure]:
    """Return the figures of one scan by file name; those that need arrays only where these are present."""
    figures = {"profile": profile(result), "norms": norms(result), "spectra": spectra(result)}
    if "error_histogram" in result.arrays:
        figures["tails"] = tails(result)
    return figures


def profile(result: ScanResult) -> Figure:
    """Draw score and increment score per layer: paper, held-out with its interval, ordinary; sinks marked."""
    figure, axes = _panels(2, (9, 6.2))
    for axis, name, title in zip(
        axes, ("score", "increment"), ("Score (with residual)", "Increment score (without residual)"), strict=True
    ):
        scores: list[Score] = [getattr(layer, name) for layer in result.layers]
        x = [layer.layer for layer in result.layers]
        low, high = _values(s.heldout_low for s in scores), _values(s.heldout_high for s in scores)
        axis.fill_between(x, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axis.plot(x, _values(s.paper for s in scores), "--", color=GREY, label="paper (all tokens, in-sample)")
        axis.plot(x, _values(s.heldout for s in scores), "o-", color=BLUE, ms=3.5, label="held-out, 95 % interval")
        axis.plot(x, _values(s.ordinary for s in scores), "s-", color=ORANGE, ms=3.5, label="ordinary (no sinks)")
        marked = [layer.layer for layer in result.layers if layer.sinks.count]
        axis.plot(
            marked, [0.015] * len(marked), "D", color=RED, ms=3, transform=axis.get_xaxis_transform(), label="sinks"
        )
        axis.set(ylabel=title)
    axes[-1].set(xlabel="layer")
    _legend(figure, axes[0])
    return figure


def norms(result: ScanResult) -> Figure:
    """Draw norm ratio (Figure 3 of the paper), adjacent cosine with its spread, and stream norms."""
    figure, axes = _panels(3, (9, 7.2))
    x = [layer.layer for layer in result.layers]
    axes[0].plot(x, _values(layer.norm_ratio for layer in result.layers), "o-", color=GREEN, ms=3.5)
    axes[0].set(yscale="log", ylabel="contribution / stream")
    cosine = _values(layer.cosine for layer in result.layers)
    spread = _values(layer.cosine_std for layer in result.layers)
    axes[1].fill_between(x, cosine - spread, np.minimum(cosine + spread, 1), color=BLUE, alpha=0.18, linewidth=0)
    axes[1].plot(x, cosine, "o-", color=BLUE, ms=3.5)
    axes[1].set(ylabel="adjacent cosine, ± std")
    axes[2].plot(x, _values(layer.stream_norm_max for layer in result.layers), "^-", color=RED, ms=3.5, label="max")
    axes[2].plot(
        x, _values(layer.stream_norm_median for layer in result.layers), "o-", color=BLUE, ms=3.5, label="median"
    )
    axes[2].set(yscale="log", ylabel="stream norm", xlabel="layer")
    axes[2].legend(frameon=False, loc="upper left", ncols=2)
    return figure


def tails(result: ScanResult) -> Figure:
    """Draw the per-token error histogram of every layer (Figure 9 of the paper) and the worst tokens' share."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2, 1], sharey=True)
    counts, edges = result.arrays["error_histogram"], result.arrays["error_edges"]
    used = np.flatnonzero(counts.sum(0))
    if len(used):
        first, last = used[0], used[-1] + 1
        share = counts[:, first:last] / np.maximum(counts.sum(1, keepdims=True), 1)
        rows = np.arange(len(counts) + 1) - 0.5
        drawn = np.where(share > 0, share, np.nan)
        mesh = left.pcolormesh(edges[first : last + 1], rows, drawn, norm="log", cmap="viridis")
        figure.colorbar(mesh, ax=left, label="share of held-out tokens", location="left", pad=0.02)
        left.set(xscale="log")
    left.set(xlabel="L2 error of the linear map, per token", ylabel="layer")
    y = [layer.layer for layer in result.layers]
    for key, colour, label in (
        ("share_5", SKY, "worst 5 %"),
        ("share_1", BLUE, "worst 1 %"),
        ("share_01", RED, "worst 0.1 %"),
    ):
        shares = 100 * _values(getattr(layer.tails, key) for layer in result.layers)
        right.barh(y, shares, color=colour, height=0.85, label=label)
    right.set(xlabel="share of the squared error, %")
    right.legend(frameon=False, loc="lower right")
    _plain(left)
    _plain(right)
    return figure


def spectra(result: ScanResult) -> Figure:
    """Draw anisotropy, effective rank and intrinsic dimension of each layer's outputs."""
    figure, axes = _panels(3, (9, 6.4))
    x = [layer.layer for layer in result.layers]
    names = ("anisotropy", "effective_rank", "intrinsic_dimension")
    for axis, name, colour in zip(axes, names, (PINK, GREEN, BLUE), strict=True):
        axis.plot(x, _values(getattr(layer.spectrum, name) for layer in result.layers), "o-", color=colour, ms=3.5)
        axis.set(ylabel=name.replace("_", " "))
        axis.set_ylim(bottom=0)
    axes[-1].set(xlabel="layer")
    return figure


def overlay(results: Sequence[ScanResult], labels: Sequence[str]) -> Figure:
    """Draw several models over normalised depth: scores (Figure 1 of the paper) and norm ratio (Figure 3)."""
    figure, axes = _panels(3, (9, 8.4))
    parts = (
        ("score, held-out", lambda layer: _judged(layer.score)),
        ("increment score, held-out", lambda layer: _judged(layer.increment)),
        ("contribution / stream", lambda layer: layer.norm_ratio),
    )
    for axis, (title, pick) in zip(axes, parts, strict=True):
        for index, (result, label) in enumerate(zip(results, labels, strict=True)):
            values = _values(pick(layer) for layer in result.layers)
            axis.plot(depth(result.layers), values, "o-", ms=3, color=CYCLE[index % len(CYCLE)], label=label)
        axis.set(ylabel=title)
    axes[-1].set(yscale="log", xlabel="normalised depth (layer / last layer)")
    _legend(figure, axes[0])
    return figure


def depth(layers: Sequence[LayerResult]) -> list[float]:
    """Return each layer's index over the last one's, 0 to 1."""
    return [layer.layer / max(layers[-1].layer, 1) for layer in layers]


def _judged(score: Score) -> float | None:
    return score.paper if score.heldout is None else score.heldout


def _values(values: Iterable[float | None]) -> np.ndarray:
    """Return floats with gaps (NaN) for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _panels(count: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(count, 1, sharex=True)
    for axis in axes:
        _plain(axis)
        axis.grid(axis="y", color="#00000018", linewidth=0.6)
    return figure, axes


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    # `$` starts mathematics in matplotlib; a label is data.
    texts = [label.replace("$", r"\$") for label in labels]
    figure.legend(handles, texts, loc="outside upper center", ncols=min(4, len(labels)), frameon=False, fontsize=9)
