"""The figure of spans: two triangles of cells, one map for each span beside the maps of its layers in turn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rectilinear.report.scale import Scale
from rectilinear.report.shapes import BLUE, LINE, TITLE, WIDTH, Area, Drawing, Hit, Points, Text, box, reach

TOP, FOOT, BETWEEN, RIGHT = 58.0, 50.0, 44.0, WIDTH - 14.0
SHADES = 10
TITLES = {"span_score": "One map for the span", "span_composed": "The maps of its layers, in turn"}


def triangles(arrays: Mapping[str, np.ndarray]) -> Drawing:
    """Return the scores of spans [first layer, last layer], NaN where not measured; the shades are those of both."""
    layers = len(arrays["span_score"])
    left = 44 + reach(str(layers - 1))
    side = (RIGHT - left - BETWEEN) / 2
    drawing = Drawing(TOP + side + FOOT)
    lowest = _lowest(arrays)
    for index, (name, title) in enumerate(TITLES.items()):
        x = left + index * (side + BETWEEN)
        drawing.shapes.append(Text(x, TOP - 14, title, size=TITLE, bold=True))
        drawing.shapes.append(Area([box(x, TOP, x + side, TOP + side)], LINE, 0.35, crisp=True))
        drawing.shapes.extend(_cells(arrays[name], x, side / layers, lowest))
        across = Scale(-0.5, layers - 0.5, x, x + side)
        for at, label in across.ticks(9, whole=True):
            drawing.shapes.append(Text(at, TOP + side + 19, label, "middle"))
            if index == 0:
                drawing.shapes.append(Text(left - 8, TOP + at - x + 4.5, label, "end"))
        drawing.shapes.append(Text(x + side / 2, TOP + side + 39, "last layer", "middle"))
        drawing.hits.extend(_hits(layers, x, side / layers))
        _key(drawing, x, side, lowest)
    drawing.shapes.append(Text(16, TOP + side / 2, "first layer", "middle", turned=True))
    return drawing


def _lowest(arrays: Mapping[str, np.ndarray]) -> float:
    """Return the score of the palest shade: the lowest one measured, to a tenth, but not below 0."""
    known = np.concatenate([arrays[name][~np.isnan(arrays[name])] for name in TITLES])
    return max(float(np.floor(10 * known.min()) / 10), 0.0) if len(known) else 0.0


def _cells(scores: np.ndarray, left: float, wide: float, lowest: float) -> list[Area]:
    cells: dict[int, list[Points]] = {}
    for (first, last), score in np.ndenumerate(scores):
        if not np.isnan(score):
            x, y = left + wide * last, TOP + wide * first
            shade = int(np.clip(SHADES * (score - lowest) / max(1 - lowest, 1e-9), 0, SHADES - 1))
            cells.setdefault(shade, []).append(box(x, y, x + wide, y + wide))
    return [Area(shapes, BLUE, (shade + 1) / SHADES, crisp=True) for shade, shapes in sorted(cells.items())]


def _hits(layers: int, left: float, wide: float) -> list[Hit]:
    """Return for each layer the row of the spans that begin with it, from the diagonal on."""
    right = left + wide * layers
    return [
        Hit(left + wide * i, TOP + wide * i, right, TOP + wide * (i + 1), i, f"layer {i}", layers - i)
        for i in range(layers)
    ]


def _key(drawing: Drawing, left: float, side: float, lowest: float) -> None:
    """Draw what the shades mean, in the empty half of a triangle."""
    step, x, y = side / 3 / SHADES, left + 14, TOP + side - 30
    for shade in range(SHADES):
        cell = box(x + step * shade, y, x + step * (shade + 1), y + 12)
        drawing.shapes.append(Area([cell], BLUE, (shade + 1) / SHADES, crisp=True))
    drawing.shapes.append(Text(x, y - 6, f"{lowest:g} or less"))
    drawing.shapes.append(Text(x + step * SHADES, y - 6, "1", "end"))
