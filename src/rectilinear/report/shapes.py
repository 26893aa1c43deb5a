"""What a figure is made of: lines, areas and text, in pixels, y downwards; and its colours.

`svg.py` writes such a drawing as text, `png.py` paints it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

# Okabe and Ito's palette, told apart by every common colour vision.
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
# Neutral colours.
INK, SOFT, LINE = "#24292f", "#6b7480", "#e1e5ea"
WIDTH = 900.0  # every figure shares it, so that type has one size on a page
TYPE, TITLE = 13.0, 14.5  # sizes of type

Point = tuple[float, float]
Points = Sequence[Point]


@dataclass(frozen=True)
class Line:
    """Open lines through points, one stroke for all; ends and corners are round. Scripts know it by `name`."""

    lines: Sequence[Points]
    colour: str
    width: float = 1.0
    dash: tuple[float, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Area:
    """Closed shapes through points, one fill for all; `crisp` ones meet without a seam. Named as lines are."""

    shapes: Sequence[Points]
    colour: str
    opacity: float = 1.0
    crisp: bool = False
    name: str = ""


@dataclass(frozen=True)
class Text:
    """Words whose baseline begins, is centred or ends at (x, y); `turned` runs upwards."""

    x: float
    y: float
    words: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: float = TYPE
    bold: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Group:
    """The shapes of one series, which a page can hide; `key`: those that name it in the legend."""

    shapes: Sequence[Line | Area | Text]
    series: int
    key: bool = False


@dataclass(frozen=True)
class Hit:
    """The place in a figure that stands for one row of the table behind it; nothing is drawn there.

    cells: how many parts of equal width it has, from left to right, each a cell of the row.
    """

    left: float
    top: float
    right: float
    bottom: float
    row: int
    label: str
    cells: int = 1


@dataclass(frozen=True)
class Drawing:
    """A figure: its size, its shapes from back to front, and the places on a page that can be pointed at."""

    height: float
    shapes: list[Line | Area | Text | Group] = field(default_factory=list)
    width: float = WIDTH
    hits: list[Hit] = field(default_factory=list)

    def plain(self) -> Iterator[Line | Area | Text]:
        """Yield the shapes, groups opened."""
        for shape in self.shapes:
            yield from shape.shapes if isinstance(shape, Group) else (shape,)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the corners of a rectangle."""
    return (left, top), (right, top), (right, bottom), (left, bottom)


def markers(kind: str, points: Points, colour: str, size: float = 3.2) -> Line | Area:
    """Return one marker a point: "dot", "square", "diamond", "up", "down" (triangles) or "tick" (upright)."""
    if kind == "dot":  # a stroke of hardly any length with round ends
        return Line([((x - 0.05, y), (x + 0.05, y)) for x, y in points], colour, 2 * size)
    if kind == "tick":
        return Line([((x, y - 1.5 * size), (x, y + 1.5 * size)) for x, y in points], colour, 1.8)
    return Area([[(x + size * a, y + size * b) for a, b in CORNERS[kind]] for x, y in points], colour)


CORNERS: dict[str, Points] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "up": ((0, -1.2), (1.2, 1.0), (-1.2, 1.0)),
    "down": ((0, 1.2), (1.2, -1.0), (-1.2, -1.0)),
}


def reach(words: str, size: float = TYPE) -> float:
    """Return about how wide words are: those of a wide typeface, so that what is placed beside them never touches."""
    return size * sum(_em(letter) for letter in words)


def _em(letter: str) -> float:
    if ord(letter) >= 0x1100:  # ideographs, Hangul, emoji
        return 1.05
    if letter in "ijl.,:;'!|()[] -fIrt":
        return 0.4
    return 0.95 if letter in "mwMW@%" else 0.72 if letter.isupper() else 0.64
