"""The figure of errors: where each layer's errors lie, token by token, and how much the worst tokens carry."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import numpy as np

from rectilinear.report.chart import Curve, bottom_axis, legend_beside
from rectilinear.report.scale import Scale
from rectilinear.report.shapes import (
    BLUE,
    LINE,
    RED,
    SKY,
    SOFT,
    TITLE,
    WIDTH,
    Area,
    Drawing,
    Group,
    Hit,
    Line,
    Points,
    Text,
    box,
    markers,
    reach,
)

TOP, FOOT = 58.0, 46.0
SPLIT, BETWEEN, RIGHT = 0.66, 36.0, WIDTH - 14.0
PALEST = 0.12  # opacity of the rarest errors: a single token must still show


def error_map(
    rows: np.ndarray,
    marks: dict[str, np.ndarray],
    shares: dict[str, np.ndarray],
    counts: np.ndarray | None,
    edges: np.ndarray | None,
) -> Drawing:
    """Return the histogram of errors of every layer and, beside it, the share of the worst tokens.

    rows: the layers' numbers [L]; marks: `median` and `p99` of their errors [L]; shares: by label, the share of the
    squared error that the worst tokens carry [L], largest first; counts [L, bins] over edges [bins + 1], None where the
    arrays are not at hand: then the shares fill the figure.
    """
    layers = len(rows)
    height = min(max(11.0 * layers, 150.0) + 60, 800.0)
    drawing = Drawing(TOP + height + FOOT)
    start = left = 44 + reach(str(rows[-1]))
    up = Scale(rows[0] - 0.5, rows[-1] + 0.5, TOP + height, TOP)
    for at, label in up.ticks(int(height / 26), whole=True):
        drawing.shapes.append(Text(left - 8, at + 4.5, label, "end"))
    drawing.shapes.append(Text(16, TOP + height / 2, "layer", "middle", turned=True))
    if counts is not None and edges is not None and counts.any():
        split = left + SPLIT * (RIGHT - left)
        drawing.shapes.extend(_map(rows, marks, counts, edges, up, (left, split)))
        left = split + BETWEEN
    drawing.shapes.extend(_shares(rows, shares, up, (left, RIGHT)))
    bottoms, tops = up(rows - 0.5), up(rows + 0.5)
    for row, layer in enumerate(rows.tolist()):
        drawing.hits.append(Hit(start, tops[row], RIGHT, bottoms[row], row, f"layer {layer}"))
    return drawing


def _map(
    rows: np.ndarray,
    marks: dict[str, np.ndarray],
    counts: np.ndarray,
    edges: np.ndarray,
    up: Scale,
    span: tuple[float, float],
) -> Iterable[Line | Area | Text | Group]:
    left, right = span
    used = np.flatnonzero(counts.sum(0))
    first, last = used[0], used[-1] + 1
    across = Scale(edges[first], edges[last], left, right, log=True)
    share = 100 * counts[:, first:last] / np.maximum(counts.sum(1, keepdims=True), 1)
    # Half a decade a shade; empty cells have none.
    shade = np.floor(2 * np.log10(share, out=np.full(share.shape, -np.inf), where=share > 0))
    low, high = int(shade[np.isfinite(shade)].min()), int(shade.max())
    opacity = {k: PALEST + (1 - PALEST) * (k - low) / max(high - low, 1) for k in range(low, high + 1)}
    heights, widths = up(np.append(rows - 0.5, rows[-1] + 0.5)), across(edges[first : last + 1])
    for k in opacity:
        cells = [cell for i, row in enumerate(shade) for cell in _cells(row == k, widths, heights[i : i + 2])]
        if cells:
            yield Area(cells, BLUE, opacity[k], crisp=True)
    yield Line([((left, up.start), (right, up.start))], SOFT)
    named = []
    for name, marker, label in (("median", "dot", "median"), ("p99", "tick", "99th percentile")):
        x, y = across(marks[name]), up(rows)
        known = np.isfinite(x)
        yield markers(marker, list(zip(x[known], y[known], strict=True)), RED)
        named.append(Curve(rows, rows, RED, label, marker, lined=False))
    yield Text(left, TOP - 12, "Errors, token by token", size=TITLE, bold=True)
    yield from legend_beside(named, right, TOP - 12)
    yield from _key(opacity, float(share[share > 0].min()), float(share.max()), left)
    yield from bottom_axis(across, up.start, across.ticks(9), "L2 error of the linear map, one token")


def _cells(found: np.ndarray, widths: np.ndarray, heights: np.ndarray) -> Iterable[Points]:
    """Yield one rectangle for each stretch of True in a row of cells: neighbours of one shade are one shape."""
    at = 0
    for value, group in groupby(found.tolist()):
        end = at + len(list(group))
        if value:
            yield box(widths[at], heights[1], widths[end], heights[0])
        at = end


def _key(opacity: dict[int, float], least: float, most: float, x: float) -> Iterable[Area | Text]:
    """Yield the shades from the rarest to the most frequent, and what the ends stand for."""
    words, last = (f"{float(f'{share:.2g}'):g} %" for share in (least, most))
    yield Text(x, 16, words)
    x += reach(words) + 4
    for shade in opacity.values():
        yield Area([box(x, 5, x + 20, 18)], BLUE, shade, crisp=True)
        x += 20
    yield Text(x + 8, 16, f"{last} of the layer's held-out tokens")


def _shares(
    rows: np.ndarray, shares: dict[str, np.ndarray], up: Scale, span: tuple[float, float]
) -> Iterable[Line | Area | Text | Group]:
    left, right = span
    across = Scale(0, 100, left, right)
    ticks = across.ticks(5)
    yield Line([((at, up.start), (at, up.stop)) for at, _ in ticks], LINE)
    half = 0.41 * abs(up.stop - up.start) / len(rows)
    named = []
    for (label, values), colour in zip(shares.items(), (SKY, BLUE, RED), strict=True):
        ends, middle = across(100 * np.nan_to_num(values)), up(rows)
        yield Area([box(left, y - half, x, y + half) for x, y in zip(ends, middle, strict=True)], colour)
        named.append(Curve(rows, rows, colour, label, "square", lined=False))
    yield Line([((left, up.start), (right, up.start))], SOFT)
    yield Text(left, TOP - 12, "Worst", size=TITLE, bold=True)
    yield from legend_beside(named, right, TOP - 12)
    yield from bottom_axis(across, up.start, ticks, "% of the squared error")
