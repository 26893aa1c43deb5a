"""Drawings as SVG: a file that stands alone, or part of a page whose colours it takes on."""

from __future__ import annotations

from html import escape

from rectilinear.report.shapes import BLUE, INK, LINE, SKY, SOFT, Area, Drawing, Line, Point, Text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
PAGE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", BLUE: "var(--blue)", SKY: "var(--sky)"}


def svg(drawing: Drawing, label: str, *, page: bool = False) -> str:
    """Return the drawing as an SVG element named `label`.

    It stands alone, on white, or with `page` takes its size from a page, and from the page's CSS variables those
    colours that differ between light and dark.
    """
    width, height = _short(drawing.width), _short(drawing.height)
    if page:
        head, paper, colours = "<svg", "", PAGE
    else:
        head, colours = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"', {}
        paper = f'<path d="M0,0H{width}V{height}H0z" fill="#fff"/>\n'
    shapes = "\n".join(_element(shape, colours) for shape in drawing.shapes)
    return (
        f'{head} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'font-family="{FONT}" stroke-linecap="round" stroke-linejoin="round">\n{paper}{shapes}\n</svg>\n'
    )


def _element(shape: Line | Area | Text, colours: dict[str, str]) -> str:
    if isinstance(shape, Text):
        return _text(shape, colours)
    colour = colours.get(shape.colour, shape.colour)
    name = f' data-name="{escape(shape.name)}"' if shape.name else ""
    if isinstance(shape, Area):
        opacity = f' fill-opacity="{shape.opacity:.3g}"' if shape.opacity < 1 else ""
        crisp = ' shape-rendering="crispEdges"' if shape.crisp else ""
        path = "".join(f"M{' '.join(map(_at, points))}z" for points in shape.shapes)
        return f'<path d="{path}" fill="{colour}"{opacity}{crisp}{name}/>'
    dash = f' stroke-dasharray="{" ".join(map(_short, shape.dash))}"' if shape.dash else ""
    path = "".join(f"M{' '.join(map(_at, points))}" for points in shape.lines)
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{_short(shape.width)}"{dash}{name}/>'


def _text(text: Text, colours: dict[str, str]) -> str:
    anchor = f' text-anchor="{text.anchor}"' if text.anchor != "start" else ""
    bold = ' font-weight="bold"' if text.bold else ""
    x, y = _short(text.x), _short(text.y)
    turned = f' transform="rotate(-90 {x} {y})"' if text.turned else ""
    ink = colours.get(INK, INK)
    words = escape(text.words, quote=False)
    return f'<text x="{x}" y="{y}" font-size="{_short(text.size)}" fill="{ink}"{anchor}{bold}{turned}>{words}</text>'


def _at(point: Point) -> str:
    return f"{_short(point[0])},{_short(point[1])}"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
