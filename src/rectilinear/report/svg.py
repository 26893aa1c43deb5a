"""Drawings as SVG: a file that stands alone, or part of a page whose colours it takes on."""

from __future__ import annotations

from html import escape

from rectilinear.report.shapes import BLUE, INK, LINE, SKY, SOFT, Area, Drawing, Group, Hit, Line, Point, Text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
PAGE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", BLUE: "var(--blue)", SKY: "var(--sky)"}


def svg(drawing: Drawing, label: str) -> str:
    """Return the drawing as an SVG file named `label`, on white."""
    width, height = _short(drawing.width), _short(drawing.height)
    head = f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img"'
    paper = f'<path d="M0,0H{width}V{height}H0z" fill="#fff"/>'
    return _whole(drawing, label, head, [paper, *(_element(shape, {}) for shape in drawing.plain())])


def inline(drawing: Drawing, label: str, link: str = "") -> str:
    """Return the drawing as an SVG element named `label`, part of a page.

    It takes its size from the page, and from the page's CSS variables those colours that differ between light and dark;
    its hits lead to `link`, ended by the number of their row.
    """
    parts = [_group(shape) if isinstance(shape, Group) else _element(shape, PAGE) for shape in drawing.shapes]
    # Without hits a figure is a picture; with them what lies inside can be reached.
    role = 'role="group"' if drawing.hits else 'role="img"'
    return _whole(drawing, label, role, [*parts, *(_hit(hit, link) for hit in drawing.hits)])


def _whole(drawing: Drawing, label: str, head: str, parts: list[str]) -> str:
    joined = "\n".join(parts)
    return (
        f'<svg {head} viewBox="0 0 {_short(drawing.width)} {_short(drawing.height)}" aria-label="{escape(label)}" '
        f'font-family="{FONT}" stroke-linecap="round" stroke-linejoin="round">\n{joined}\n</svg>\n'
    )


def _group(group: Group) -> str:
    parts = "".join(_element(shape, PAGE) for shape in group.shapes)
    return f'<g class="{"key" if group.key else "series"}" data-series="{group.series}">{parts}</g>'


def _hit(hit: Hit, link: str) -> str:
    x, y, width, height = map(_short, (hit.left, hit.top, hit.right - hit.left, hit.bottom - hit.top))
    to = f' href="{link}{hit.row}"' if link else ""
    cells = f' data-cells="{hit.cells}"' if hit.cells > 1 else ""
    return (
        f'<a class="hit" data-row="{hit.row}"{cells}{to} tabindex="-1" aria-label="{escape(hit.label)}">'
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/></a>'
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
