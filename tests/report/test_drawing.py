import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from rectilinear.report import png
from rectilinear.report.chart import Curve, Panel, legend_rows, stacked
from rectilinear.report.plots import overlay, scan_figures
from rectilinear.report.scale import Scale, around
from rectilinear.report.shapes import CORNERS, RED, Area, Drawing, Line, Text, markers
from rectilinear.report.svg import inline, svg

X = np.arange(5.0)
WHITE = 255


def labels(scale, most, **options):
    return [label for _, label in scale.ticks(most, **options)]


def test_a_scale_maps_its_ends_and_leaves_gaps():
    assert Scale(0, 10, 300, 100)(np.array([0, 5, 10])).tolist() == [300, 200, 100]
    pixels = Scale(1, 100, 0, 200, log=True)(np.array([1, 10, 100, 0, np.nan]))
    assert pixels[:3].tolist() == [0, 100, 200]
    assert np.isnan(pixels[3:]).all()


def test_ticks_are_round_and_within_the_scale():
    assert labels(Scale(-0.31, 1.02, 0, 1), 8) == ["−0.2", "0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert labels(Scale(0, 26_000, 0, 1), 4) == ["0", "10,000", "20,000"]
    assert labels(Scale(13, 40, 0, 1, log=True), 6) == ["15", "20", "25", "30", "35", "40"]
    assert labels(Scale(-0.5, 2.5, 0, 1), 16, whole=True) == ["0", "1", "2"]
    assert labels(Scale(0.08, 1.1, 0, 1, log=True), 8) == ["0.1", "0.2", "0.5", "1"]
    assert labels(Scale(30, 40_000, 0, 1, log=True), 7) == ["30", "100", "300", "1,000", "3,000", "10,000", "30,000"]
    assert len(labels(Scale(1e-30, 1e30, 0, 1, log=True), 8)) <= 8


@pytest.mark.parametrize("log", [False, True])
def test_limits_hold_the_values_whatever_they_are(log):
    for values in ([2.0, 3.0], [5.0], [np.nan], [], [0.0, np.inf]):
        low, high = around([np.array(values)], log=log)
        assert low < high and (low > 0 or not log)
        assert all(low < v < high for v in values if np.isfinite(v) and (v > 0 or not log))


def test_a_gap_parts_a_curve_and_a_lone_point_shows():
    y = np.array([1.0, 2.0, np.nan, 2.0, np.nan])
    drawing = stacked([Panel("", [Curve(X, y, RED, marker="")])], "x", (0, 4), 100)
    [curve] = [shape for shape in drawing.shapes if isinstance(shape, Line) and shape.colour == RED]
    assert [len(line) for line in curve.lines] == [2, 2]
    (left, _), (right, _) = curve.lines[1]
    assert right > left


def test_values_below_the_limits_end_in_an_arrow_at_the_edge():
    y = np.array([1.0, -9.0, 1.0, 0.5, 1.0])
    drawing = stacked([Panel("", [Curve(X, y, RED)], (0.0, 1.0))], "x", (0, 4), 100)
    line, dots, arrow = (shape for shape in drawing.shapes if getattr(shape, "colour", "") == RED)
    lowest = max(y for _, y in line.lines[0])
    assert lowest == 130  # title 30, panel 100: clipped at its bottom
    assert len(dots.lines) == 4
    assert len(arrow.shapes) == 1 and arrow.shapes[0][0][1] < lowest


def test_legends_wrap_and_name_only_what_is_drawn():
    curves = [Curve(X, X, RED, f"a rather long name of a model, number {i}") for i in range(5)]
    empty = Curve(X, np.full(5, np.nan), RED, "nothing to see")
    rows = legend_rows([*curves, empty], 800)
    assert [len(row) for row in rows] == [2, 2, 1]


def test_a_file_stands_alone_and_a_page_lends_its_colours(make_scan):
    for name, figure in scan_figures(make_scan(30)).items():
        alone, inside = svg(figure, name), inline(figure, name)
        root = ElementTree.fromstring(alone)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.get("width")) == 900
        assert "var(" not in alone and "nan" not in alone
        assert "var(--ink)" in inside and "#24292f" not in inside
        assert len(inside) < 120_000


def test_text_in_a_figure_is_escaped(make_scan):
    text = svg(overlay([make_scan(3)] * 2, ["</svg><script>", "\ud800 & \x1b"]), 'a "b"')
    words = [element.text for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert {"</svg><script>", "\\ud800 & \\x1b"} <= set(words)


def test_every_shape_is_painted():
    places = [(50.0, 40.0 * (i + 1)) for i in range(len(CORNERS) + 2)]
    shapes = [markers(kind, [place], RED) for kind, place in zip([*CORNERS, "dot", "tick"], places, strict=True)]
    shapes += [Line([((10, 300), (90, 300))], RED, 2.0, (7.0, 5.0)), Area([((10, 310), (90, 310), (90, 330))], RED)]
    shapes.append(Text(50, 370, "$words$ 漢字", "middle"))
    image = Image.open(io.BytesIO(png.encoded(png.pixels(png.figure(Drawing(400.0, shapes, 100.0)))))).convert("L")
    assert image.size == (200, 800)
    for top in [y - 10 for _, y in places] + [290, 310, 355]:
        assert image.crop((0, int(2 * top), 200, int(2 * top) + 40)).getextrema()[0] < WHITE, top


def test_the_text_form_is_short():
    drawing = Drawing(10.0, [Area([((0, 0), (1.04, 0), (1.25, 2))], RED, 0.5, crisp=True)])
    assert re.search(r'd="M0,0 1,0 1.2,2z" fill="#d55e00" fill-opacity="0.5" shape-rendering', svg(drawing, ""))
