"""Drawings as PNG: painted by matplotlib, which takes a second to load and is loaded on first use."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rectilinear.report.shapes import INK, Area, Drawing, Line, Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

SCALE = 2  # pixels of the image a pixel of the drawing
DOT = 4.0  # strokes from this width on are dots


def encoded(image: Image) -> bytes:
    """Return the pixels of a figure as PNG; this may run beside the painting of another, which takes as long."""
    stream = io.BytesIO()
    image.save(stream, format="png", compress_level=1)  # a third of the time
    return stream.getvalue()


def figure(drawing: Drawing) -> Figure:
    """Return the drawing as a matplotlib figure; a notebook shows it, whatever matplotlib's backend."""
    from matplotlib.figure import Figure
    from matplotlib.transforms import Affine2D

    class Painted(Figure):
        """A figure that was not made by pyplot, which would show it, and so shows itself."""

        def _repr_png_(self) -> bytes:
            return encoded(pixels(self))

    drawn = Painted(figsize=(drawing.width / 100, drawing.height / 100), dpi=100)
    place = Affine2D().scale(1 / drawing.width, -1 / drawing.height).translate(0, 1) + drawn.transFigure
    for order, shape in enumerate(drawing.plain()):
        artist = _text(shape) if isinstance(shape, Text) else _patch(shape)
        artist.set(transform=place, zorder=order)
        drawn.add_artist(artist)
    return drawn


def pixels(figure: Figure) -> Image:
    """Return a figure painted on white, twice its size; by one thread at a time, as matplotlib is not made for more."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL.Image import fromarray

    canvas, dpi = FigureCanvasAgg(figure), figure.dpi
    figure.set_dpi(dpi * SCALE)
    with warnings.catch_warnings():
        # A label may hold letters that the font lacks; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        try:
            canvas.draw()
        finally:
            figure.set_dpi(dpi)
    return fromarray(np.asarray(canvas.buffer_rgba()))


def _points(pixels: float) -> float:
    return pixels * 72 / 100


def _patch(shape: Line | Area) -> Any:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if isinstance(shape, Area):
        closed = Path.make_compound_path(*(Path([*points, points[0]], closed=True) for points in shape.shapes))
        return PathPatch(closed, fc=shape.colour, lw=0, alpha=shape.opacity, antialiased=not shape.crisp)
    dash = (0, tuple(part / shape.width for part in shape.dash)) if shape.dash else "-"
    lines = Path.make_compound_path(*map(Path, shape.lines))
    width = _points(shape.width)
    patch = PathPatch(lines, fill=False, ec=shape.colour, lw=width, ls=dash, capstyle="round", joinstyle="round")
    # Snapped to whole pixels the two ends of a dot would meet, and nothing be painted.
    patch.set_snap(None if shape.width < DOT else False)
    return patch


def _text(text: Text) -> Any:
    from matplotlib.text import Text as Words

    return Words(
        text.x,
        text.y,
        text.words,
        color=INK,
        size=_points(text.size),
        ha={"start": "left", "middle": "center", "end": "right"}[text.anchor],
        va="baseline",
        weight="bold" if text.bold else "normal",
        rotation=90 if text.turned else 0,
        rotation_mode="anchor",
        parse_math=False,
    )
