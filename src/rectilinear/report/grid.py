"""Small axes side by side, one a panel, all on the same scales, so that one can be held against the next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from rectilinear.report.chart import Curve, Panel, bottom_axis
from rectilinear.report.scale import Scale, around
from rectilinear.report.shapes import LINE, SOFT, WIDTH, Area, Drawing, Group, Line, Text, reach

COLUMNS, HEIGHT, HEAD, BETWEEN, FOOT = 6, 70.0, 20.0, 12.0, 46.0


def grid(panels: Sequence[Panel], xlabel: str, xlimits: tuple[float, float], *, log: bool = False) -> Drawing:
    """Return the panels in rows of six, filled below their curves, of which none is below 0.

    The horizontal axis is logarithmic with `log`, the vertical one where that of the first panel is.
    """
    rows = math.ceil(len(panels) / COLUMNS)
    low, high = around([curve.y for panel in panels for curve in panel.curves], log=panels[0].log)
    up = Scale(low if panels[0].log else 0.0, high, HEIGHT, 0, panels[0].log)
    ticks = up.ticks(3)
    left = 14 + max(reach(label) for _, label in ticks)
    wide = (WIDTH - 8 - left - (COLUMNS - 1) * BETWEEN) / COLUMNS
    drawing = Drawing(rows * (HEAD + HEIGHT + BETWEEN) + FOOT)
    for index, panel in enumerate(panels):
        row, column = divmod(index, COLUMNS)
        x, y = left + column * (wide + BETWEEN), HEAD + row * (HEAD + HEIGHT + BETWEEN)
        across = Scale(*xlimits, x, x + wide, log)
        drawing.shapes.extend(_small(panel, across, up, y, [] if column else ticks))
        if index + COLUMNS >= len(panels):
            drawing.shapes.extend(bottom_axis(across, y + HEIGHT, across.ticks(3), ""))
    middle = (left + WIDTH - 8) / 2
    drawing.shapes.append(Text(middle, drawing.height - 8, xlabel, "middle"))
    return drawing


def _small(
    panel: Panel, across: Scale, up: Scale, top: float, ticks: Sequence[tuple[float, str]]
) -> Iterable[Line | Area | Text | Group]:
    for at, label in ticks:
        yield Text(across.start - 8, top + at + 4.5, label, "end")
    yield Line([((across.start, top + at), (across.stop, top + at)) for at, _ in up.ticks(3)], LINE)
    yield Text(across.start, top - 6, panel.title)
    for curve in panel.curves:
        yield from _filled(curve, across, up, top)
    yield Line([((across.start, top + up.start), (across.stop, top + up.start))], SOFT)


def _filled(curve: Curve, across: Scale, up: Scale, top: float) -> Iterable[Area]:
    points = list(zip(across(curve.x), top + up(np.maximum(curve.y, up.low)), strict=True))
    floor = top + up.start
    yield Area([[(points[0][0], floor), *points, (points[-1][0], floor)]], curve.colour)
