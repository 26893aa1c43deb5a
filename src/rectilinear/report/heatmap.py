"""The heat map of a prompt: tokens down, layers across, the relative error of each layer's linear map as a shade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rectilinear.report.scale import Scale
from rectilinear.report.shapes import (
    BLUE,
    ORANGE,
    RED,
    TITLE,
    WIDTH,
    Area,
    Drawing,
    Point,
    Points,
    Text,
    box,
    markers,
    reach,
)
from rectilinear.report.text import plain, token
from rectilinear.results import TokenResult

SHADES = 10  # tenths of the relative error; above 1 comes one more
DEEP = 8  # from this one on, white is read better than black
SHOWN = 300  # tokens drawn and printed: the last ones of a longer prompt
TOP, ROW, FOOT, RIGHT = 46.0, 21.0, 46.0, WIDTH - 14.0
LABEL = 18  # characters of a token
ABOVE = "above 1"


def shade(error: float | None) -> int | None:
    """Return the tenth that a relative error lies in, 0 to 9, and 10 above 1; None where there is none."""
    return None if error is None else SHADES if error > 1 else min(int(SHADES * error), SHADES - 1)


def heat_map(tokens: Sequence[TokenResult]) -> Drawing:
    """Return the relative error of every layer on each token, sinks marked."""
    layers = len(tokens[0].relative_error)
    bottom = TOP + ROW * len(tokens)
    drawing = Drawing(bottom + FOOT)
    names = [token(plain(one.token, LABEL)) for one in tokens]
    left = 18 + max(map(reach, names))
    across = Scale(-0.5, layers - 0.5, left, RIGHT)
    cells: dict[int, list[Points]] = {}
    sinks: list[Point] = []
    wide = (RIGHT - left) / layers
    for row, one in enumerate(tokens):
        top = TOP + ROW * row
        drawing.shapes.append(Text(left - 8, top + 15, names[row], "end"))
        for layer, error in enumerate(one.relative_error):
            start = left + wide * layer
            found = shade(error)
            if found is not None:
                cells.setdefault(found, []).append(box(start, top, start + wide, top + ROW))
            if one.sink[layer]:
                sinks.append((start + wide / 2, top + ROW / 2))
    for found, shapes in sorted(cells.items()):
        drawing.shapes.append(_area(found, shapes))
    if sinks:
        drawing.shapes.append(markers("diamond", sinks, RED, 4.0))
    drawing.shapes.extend(_key(left))
    for at, label in across.ticks(16, whole=True):
        drawing.shapes.append(Text(at, bottom + 19, label, "middle"))
    drawing.shapes.append(Text((left + RIGHT) / 2, bottom + 39, "layer", "middle"))
    return drawing


def _area(found: int, shapes: list[Points]) -> Area:
    if found == SHADES:
        return Area(shapes, ORANGE, crisp=True)
    return Area(shapes, BLUE, (found + 0.5) / SHADES, crisp=True)


def _key(left: float) -> Iterable[Area | Text]:
    """Yield the title and, at the right, what shades and markers mean."""
    yield Text(left, TOP - 22, "Relative error of each layer's linear map", size=TITLE, bold=True)
    x = RIGHT - reach("sink") - 18 - reach(ABOVE) - 30 - reach("1") - 18 * SHADES - 20
    yield Text(x - 6, TOP - 22, "0", "end")
    for found in range(SHADES):
        yield _area(found, [box(x, TOP - 34, x + 18, TOP - 20)])
        x += 18
    yield Text(x + 6, TOP - 22, "1")
    x += reach("1") + 16
    yield _area(SHADES, [box(x, TOP - 34, x + 18, TOP - 20)])
    yield Text(x + 23, TOP - 22, ABOVE)
    x += 23 + reach(ABOVE) + 8
    marker = markers("diamond", [(x, TOP - 27)], RED, 4.0)
    assert isinstance(marker, Area)
    yield marker
    yield Text(x + 9, TOP - 22, "sink")
