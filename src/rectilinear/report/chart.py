"""Charts: panels of curves above each other, with axes and legends; a figure is described as data and laid out here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from rectilinear.report.scale import Scale, around
from rectilinear.report.shapes import (
    LINE,
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
    markers,
    reach,
)
from rectilinear.report.text import plain

NAMED = 40  # points up to which a curve shows each of them by a marker
RIGHT = WIDTH - 8.0
HEAD, GAP, FOOT = 30.0, 22.0, 46.0  # heights of a panel's title, of what lies between panels, of the last one's axis
ROW, SPACE = 24.0, 20.0  # a legend's line, and the space after an entry in it


@dataclass(frozen=True)
class Curve:
    """One curve: y over x, both [n]; NaN is a gap. `label` is for the legend, none where empty.

    marker: a kind of `shapes.markers`, or "" for none. `band` is filled from its first [n] to its second [n]. `name` is
    for a page's script, not to be read.
    """

    x: np.ndarray
    y: np.ndarray
    colour: str
    label: str = ""
    marker: str = "dot"
    dash: tuple[float, ...] = ()
    band: tuple[np.ndarray, np.ndarray] | None = None
    lined: bool = True
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. `limits` of y, by default around the curves; curves below them end in an arrow at the edge.

    marks: a curve whose x alone counts: its markers stand along the bottom. `legend` puts one beside the title.
    """

    title: str
    curves: Sequence[Curve]
    limits: tuple[float, float] | None = None
    log: bool = False
    marks: Curve | None = None
    legend: bool = False


def stacked(
    panels: Sequence[Panel],
    xlabel: str,
    xlimits: tuple[float, float],
    height: float,
    *,
    whole: bool = True,
    log: bool = False,
    zero: float | None = None,
    legend: Sequence[Curve] = (),
    stops: Sequence[tuple[float, str]] = (),
) -> Drawing:
    """Return panels of one height each above each other with one x axis, whole numbers on it if `whole`.

    The axis is logarithmic with `log`; `zero` is the value in whose place it says 0. `legend` names curves above all.
    stops: places on the x axis that can be pointed at, from left to right, each with its name: a row of the table
    behind the figure.
    """
    rows = legend_rows(legend, RIGHT)
    top = ROW * len(rows) + HEAD + (6 if rows else 0)
    drawing = Drawing(top + len(panels) * height + (len(panels) - 1) * (HEAD + GAP) + FOOT)
    scales = [_vertical(panel, top + i * (height + HEAD + GAP), height) for i, panel in enumerate(panels)]
    ticks = [scale.ticks(int(height / 24)) for scale in scales]
    left = 14 + max(reach(label) for marks in ticks for _, label in marks)
    across = Scale(*xlimits, left, RIGHT, log)
    series = {curve.label: index for index, curve in enumerate(legend) if curve.label}
    for index, row in enumerate(rows):
        drawing.shapes.extend(legend_row(row, left, ROW * index + 16, series))
    for panel, scale, marks in zip(panels, scales, ticks, strict=True):
        drawing.shapes.extend(_panel(panel, across, scale, marks, series))
    drawing.hits.extend(_hits(stops, across, scales[0].stop, scales[-1].start))
    drawing.shapes.extend(bottom_axis(across, scales[-1].start, _below(across, whole, zero), xlabel))
    return drawing


def _below(across: Scale, whole: bool, zero: float | None) -> list[tuple[float, str]]:
    """Return where numbers stand on the horizontal axis, and what they say."""
    ticks = across.ticks(16, whole=whole)
    if zero is None:
        return ticks
    at = float(across(np.array([zero]))[0])
    return [(at, "0"), *((place, label) for place, label in ticks if place > at + 2 * SPACE)]


def _hits(stops: Sequence[tuple[float, str]], across: Scale, top: float, bottom: float) -> Iterable[Hit]:
    """Yield for each stop a strip over all panels, up to the middle between it and the next."""
    at = across(np.array([x for x, _ in stops]))
    edges = [across.start, *(at[:-1] + at[1:]) / 2, across.stop]
    for row, (_, label) in enumerate(stops):
        yield Hit(edges[row], top, edges[row + 1], bottom, row, label)


def _vertical(panel: Panel, top: float, height: float) -> Scale:
    spread = [part for curve in panel.curves for part in (curve.y, *(curve.band or ()))]
    return Scale(*(panel.limits or around(spread, log=panel.log)), top + height, top, panel.log)


def _panel(
    panel: Panel, across: Scale, up: Scale, ticks: list[tuple[float, str]], series: dict[str, int]
) -> Iterable[Line | Area | Text | Group]:
    left, right = across.start, across.stop
    yield Line([((left, at), (right, at)) for at, _ in ticks], LINE)
    for at, label in ticks:
        yield Text(left - 8, at + 4.5, label, "end")
    yield Text(left, up.stop - 12, panel.title, size=TITLE, bold=True)
    for draw in (_band, _curve):  # no band covers a curve
        for curve in panel.curves:
            shapes = [replace(shape, name=curve.name) for shape in draw(curve, across, up)]
            yield from _grouped(shapes, curve, series)
    yield Line([((left, up.start), (right, up.start))], SOFT)
    if panel.marks is not None:
        spots = [(x, up.start - 7) for x in across(panel.marks.x).tolist()]
        marks = markers(panel.marks.marker, spots, panel.marks.colour)
        yield from _grouped([marks], panel.marks, series)
    if panel.legend:
        yield from legend_beside(panel.curves, right, up.stop - 12)


def _grouped(
    shapes: Sequence[Line | Area | Text], curve: Curve, series: dict[str, int], *, key: bool = False
) -> Iterable[Line | Area | Text | Group]:
    """Yield the shapes of a curve, as a group where a legend names it: then a page can hide it."""
    named = curve.label in series and shapes
    yield from [Group(shapes, series[curve.label], key)] if named else shapes


def _band(curve: Curve, across: Scale, up: Scale) -> Iterable[Area]:
    if curve.band is None:
        return
    x, edges = across(curve.x), [np.maximum(edge, up.low) for edge in curve.band]
    low, high = (up(edge) for edge in edges)
    known = np.isfinite(low) & np.isfinite(high)
    for run in _runs(known):
        there = list(zip(x[run], high[run], strict=True))
        yield Area([there + list(zip(x[run], low[run], strict=True))[::-1]], curve.colour, opacity=0.16)


def _curve(curve: Curve, across: Scale, up: Scale) -> Iterable[Line | Area]:
    x, y = across(curve.x), up(np.maximum(curve.y, up.low))
    below = curve.y < up.low
    if curve.lined:
        lines: list[Points] = [list(zip(x[run], y[run], strict=True)) for run in _runs(np.isfinite(y))]
        # One point alone makes no line.
        lines = [p if len(p) > 1 else ((p[0][0] - 5, p[0][1]), (p[0][0] + 5, p[0][1])) for p in lines]
        yield Line(lines, curve.colour, 2.0, curve.dash)
    if curve.marker and len(x) <= NAMED:
        shown = np.isfinite(y) & ~below
        yield markers(curve.marker, list(zip(x[shown], y[shown], strict=True)), curve.colour)
    if below.any():
        yield markers("down", [(at, up.start - 9) for at in x[below]], curve.colour, 5.0)


def _runs(known: np.ndarray) -> list[slice]:
    """Return the stretches of True in a mask [n]."""
    runs, start = [], 0
    for value, group in groupby(known.tolist()):
        stop = start + len(list(group))
        if value:
            runs.append(slice(start, stop))
        start = stop
    return runs


def bottom_axis(across: Scale, y: float, ticks: list[tuple[float, str]], label: str) -> Iterable[Text]:
    """Yield the numbers and the name of a horizontal axis at height y."""
    for at, words in ticks:
        yield Text(at, y + 19, words, "middle")
    yield Text((across.start + across.stop) / 2, y + 39, label, "middle")


def legend_rows(curves: Sequence[Curve], right: float) -> list[list[Curve]]:
    """Return the curves that have a label and something to show, in rows that are no wider than `right`."""
    rows: list[list[Curve]] = []
    used = right
    for curve in _named(curves):
        used += _entry(curve)
        if used > right:
            rows.append([])
            used = _entry(curve)
        rows[-1].append(curve)
    return rows


def legend_row(
    curves: Sequence[Curve], x: float, y: float, series: dict[str, int] | None = None
) -> Iterable[Line | Area | Text | Group]:
    """Yield a sample and the label of each curve, from x on, on the baseline y; `series` numbers them by label."""
    for curve in curves:
        yield from _grouped(list(_key(curve, x, y)), curve, series or {}, key=True)
        x += _entry(curve)


def _key(curve: Curve, x: float, y: float) -> Iterable[Line | Area | Text]:
    end = x + _sample(curve)
    if curve.lined:
        yield Line([((x, y - 4.5), (end, y - 4.5))], curve.colour, 2.0, curve.dash)
    if curve.marker:
        yield markers(curve.marker, [((x + end) / 2, y - 4.5)], curve.colour, 3.2 if curve.lined else 4.5)
    yield Text(end + 6, y, plain(curve.label))


def legend_beside(curves: Sequence[Curve], right: float, y: float) -> Iterable[Line | Area | Text | Group]:
    """Yield a legend that ends at `right`, on the baseline y of a title: never on the data."""
    named = _named(curves)
    return legend_row(named, right - sum(map(_entry, named)) + SPACE, y)


def _named(curves: Iterable[Curve]) -> list[Curve]:
    return [curve for curve in curves if curve.label and np.isfinite(curve.y).any()]


def _entry(curve: Curve) -> float:
    return _sample(curve) + 6 + reach(plain(curve.label)) + SPACE


def _sample(curve: Curve) -> float:
    """Return how wide the sample of a curve is in a legend."""
    return 24.0 if curve.lined else 9.0
