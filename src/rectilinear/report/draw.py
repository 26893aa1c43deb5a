"""The hand that draws: palette, axes, lines and legends shared by all figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rectilinear.report.text import plain

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


def values_of(values: Iterable[float | None]) -> np.ndarray:
    """Return floats with gaps (NaN) for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def score_limits(axis: Axes, curves: Sequence[np.ndarray]) -> None:
    """Fit the axis to the curves, no lower than FLOOR and no higher than 1 and a margin."""
    known = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    low, high = max(low, FLOOR), max(min(high, 1.0), FLOOR)
    margin = max(0.08 * (high - low), 0.01)
    axis.set_ylim(low - 1.5 * margin, high + margin)


def line(
    axis: Axes, x: np.ndarray, y: np.ndarray, colour: str, label: str = "", *, style: str = "-", marker: str = "o"
) -> None:
    """Draw one curve; on an axis with set limits, values below it become arrows at its edge."""
    if len(x) > NAMED:
        marker = ""
    elif len(x) == 1:
        marker = marker or "_"  # one layer makes no line
    # `$` starts mathematics in matplotlib; a label is data.
    text = plain(label).replace("$", r"\$")
    axis.plot(x, y, style, marker=marker, color=colour, ms=4, lw=1.6, label=text or "_nolegend_")
    below = y < axis.get_ylim()[0]
    if not axis.get_autoscaley_on() and below.any():
        bottom = np.full(below.sum(), 0.06)
        axis.plot(x[below], bottom, "v", color=colour, ms=6, transform=axis.get_xaxis_transform())


def panels(count: int, height: float) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of `count` axes above each other, sharing x."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(hspace=0.08))
    axes = figure.subplots(count, 1, sharex=True)
    for axis in axes:
        unframe(axis)
        axis.grid(axis="y", color=LINE, linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def unframe(axis: Axes) -> None:
    """Leave an axis its bottom line only."""
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(SOFT)
    axis.tick_params(which="both", color=SOFT, labelcolor=INK, length=0, labelsize=9.5)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)


def log_scale(axis: Axes) -> None:
    """Make y logarithmic, labelled 0.2 and not 2 x 10^-1."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def layer_axis(axis: Axes, x: np.ndarray) -> None:
    """Label x with whole layer numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set(xlabel="layer", xlim=(x[0] - 0.5, x[-1] + 0.5))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def title_of(axis: Axes, text: str) -> None:
    """Name an axis, top left."""
    axis.set_title(text, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8)


def legend_above(figure: Figure, axis: Axes, columns: int) -> None:
    """Put one legend for the whole figure above it."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=9.5, labelcolor=INK)


def legend_beside(axis: Axes, columns: int) -> None:
    """Put a legend on the line of the title, right: never on the data."""
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.015),
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.0,
        columnspacing=1.0,
        handletextpad=0.4,
        borderaxespad=0.0,
    )
