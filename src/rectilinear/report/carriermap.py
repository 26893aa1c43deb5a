"""The figure of carriers: of each layer's squared error the share of every kind of token, and of single tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from rectilinear.report.carriers import Row, classes, shares, strings
from rectilinear.report.chart import ROW, Curve, bottom_axis, legend_row, legend_rows
from rectilinear.report.scale import Scale
from rectilinear.report.shapes import (
    BLUE,
    GREEN,
    LINE,
    ORANGE,
    PINK,
    RED,
    SKY,
    SOFT,
    TITLE,
    WIDTH,
    Area,
    Drawing,
    Hit,
    Line,
    Points,
    Text,
    box,
    reach,
)
from rectilinear.report.text import plain, token
from rectilinear.results import ScanResult

COLOURS = {
    "sink": RED,
    "word start": BLUE,
    "continuation": SKY,
    "punctuation": ORANGE,
    "digits": GREEN,
    "whitespace": PINK,
    "special": SOFT,
}
STACK, LINE_HEIGHT, GAP, HEAD, FOOT, RIGHT = 190.0, 21.0, 64.0, 30.0, 46.0, WIDTH - 14.0
NAME = 18  # characters of a token
STEPS = {0.001: 0.08, 0.003: 0.18, 0.01: 0.32, 0.03: 0.5, 0.1: 0.72, 0.3: 1.0}  # shares, and the shade from each on


def carrier_map(result: ScanResult) -> Drawing:
    """Return each layer's squared error by kind of token, stacked, and below it that of the heaviest single tokens."""
    layers = [layer.layer for layer in result.layers]
    kinds = [row for row in classes(result) if row.name in COLOURS]
    tokens = strings(result)
    names = [token(plain(row.name, NAME)) for row in tokens]
    left = 24 + max(map(reach, [*names, "100 %"]))
    across = Scale(layers[0] - 0.5, layers[-1] + 0.5, left, RIGHT)
    samples = [_sample(row) for row in kinds]
    legend = legend_rows(samples, RIGHT - left)
    top = HEAD + ROW * len(legend) + 8
    middle = top + STACK + GAP
    bottom = middle + LINE_HEIGHT * len(tokens)
    drawing = Drawing(bottom + FOOT)
    drawing.shapes.append(Text(left, 18, "Share of the squared error, by kind of token", size=TITLE, bold=True))
    for index, entries in enumerate(legend):
        drawing.shapes.extend(legend_row(entries, left, HEAD + ROW * index + 14))
    by_kind = shares(result, "error_classes", "class")
    drawing.shapes.extend(_stack(layers, [(row.name, by_kind[row.name]) for row in kinds], across, top))
    by_token = shares(result, "error_tokens", "token")
    drawing.shapes.append(Text(left, middle - 14, "The heaviest single tokens", size=TITLE, bold=True))
    drawing.shapes.extend(_key(middle - 14))
    for at, (name, row) in enumerate(zip(names, tokens, strict=True)):
        drawing.shapes.append(Text(left - 8, middle + LINE_HEIGHT * at + 15, name, "end"))
        drawing.shapes.extend(_cells(by_token[row.name], across, middle + LINE_HEIGHT * at))
    drawing.shapes.append(Line([((left, bottom), (RIGHT, bottom))], SOFT))
    drawing.shapes.extend(bottom_axis(across, bottom, across.ticks(16, whole=True), "layer"))
    edges = across(np.array([*layers, layers[-1] + 1]) - 0.5).tolist()
    for at, (start, end) in enumerate(pairwise(edges)):
        drawing.hits.append(Hit(start, top, end, bottom, at, f"layer {layers[at]}"))
    return drawing


def _sample(row: Row) -> Curve:
    there = np.zeros(1)
    return Curve(there, there, COLOURS[row.name], row.name, "square", lined=False)


def _stack(
    layers: Sequence[int], kinds: Sequence[tuple[str, dict[int, float]]], across: Scale, top: float
) -> Iterable[Line | Area | Text]:
    """Yield one bar a layer, its kinds upon each other."""
    up = Scale(0, 1, top + STACK, top)
    yield Line([((across.start, at), (across.stop, at)) for at, _ in up.ticks(4)], LINE)
    for share in (0.0, 0.5, 1.0):
        yield Text(across.start - 8, float(up(np.array([share]))[0]) + 4.5, f"{100 * share:.0f} %", "end")
    edges = across(np.array([[layer - 0.42, layer + 0.42] for layer in layers]).flatten()).reshape(-1, 2)
    below = np.zeros(len(layers))
    for name, found in kinds:
        above = below + np.array([found.get(layer, 0.0) for layer in layers])
        ends = zip(edges.tolist(), up(below).tolist(), up(above).tolist(), strict=True)
        yield Area([box(x, high, y, low) for (x, y), low, high in ends if low > high], COLOURS[name], crisp=True)
        below = above
    yield Line([((across.start, up.start), (across.stop, up.start))], SOFT)


def _cells(found: dict[int, float], across: Scale, top: float) -> Iterable[Area]:
    wide = (across.stop - across.start) / (across.high - across.low)
    cells: dict[float, list[Points]] = {}
    for layer, share in found.items():
        reached = [shade for least, shade in STEPS.items() if share >= least]
        if reached:
            start = across.start + wide * (layer - 0.5 - across.low)
            cells.setdefault(reached[-1], []).append(box(start, top, start + wide, top + LINE_HEIGHT))
    for shade, shapes in sorted(cells.items()):
        yield Area(shapes, BLUE, shade, crisp=True)


def _key(y: float) -> Iterable[Area | Text]:
    """Yield the shades, at the right of a title on the baseline y, and where each begins."""
    x = RIGHT
    for least, shade in reversed(STEPS.items()):
        label = f"{100 * least:g} %"
        x -= reach(label)
        yield Text(x, y, label)
        yield Area([box(x - 18, y - 11, x - 4, y + 2)], BLUE, shade, crisp=True)
        x -= 34
