"""The errors of single layers as histograms; all share their axes, so that one layer can be held against the next."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rectilinear.report.chart import Curve, bottom_axis, legend_beside
from rectilinear.report.scale import Scale
from rectilinear.report.shapes import BLUE, LINE, RED, SOFT, TITLE, Area, Drawing, Group, Line, Text, box
from rectilinear.results import ScanResult, Tails

WIDTH, HEIGHT = 480.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, WIDTH - 14.0, 40.0, HEIGHT - 46.0
DASH = (5.0, 4.0)


def histograms(result: ScanResult) -> list[Drawing]:
    """Return one histogram a layer, of the error of its map on unseen tokens; none where the scan kept no errors."""
    counts, edges = result.arrays.get("error_histogram"), result.arrays.get("error_edges")
    if counts is None or edges is None or not counts.any():
        return []
    used = np.flatnonzero(counts.sum(0))
    first, last = used[0], used[-1] + 1
    across = Scale(edges[first], edges[last], LEFT, RIGHT, log=True)
    share = 100 * counts[:, first:last] / np.maximum(counts.sum(1, keepdims=True), 1)
    # A single token must still show.
    up = Scale(0.5 * float(share[share > 0].min()), 1.5 * float(share.max()), BOTTOM, TOP, log=True)
    places = across(edges[first : last + 1])
    return [
        Drawing(HEIGHT, list(_histogram(row, places, layer.tails, across, up)), WIDTH)
        for row, layer in zip(share, result.layers, strict=True)
    ]


def _histogram(
    share: np.ndarray, places: np.ndarray, tails: Tails, across: Scale, up: Scale
) -> Iterable[Line | Area | Text | Group]:
    ticks = up.ticks(5)
    yield Line([((LEFT, at), (RIGHT, at)) for at, _ in ticks], LINE)
    for at, label in ticks:
        yield Text(LEFT - 8, at + 4.5, f"{label} %", "end")
    shown = np.flatnonzero(share)
    yield Area([box(places[i], y, places[i + 1], BOTTOM) for i, y in zip(shown, up(share[shown]), strict=True)], BLUE)
    yield Line([((LEFT, BOTTOM), (RIGHT, BOTTOM))], SOFT)
    named = []
    for value, label, dash in ((tails.median, "median", ()), (tails.p99, "99th percentile", DASH)):
        if value is not None:
            [x] = across(np.array([value]))
            yield Line([((x, TOP), (x, BOTTOM))], RED, 2.0, dash)
            named.append(Curve(share, share, RED, label, "", dash))
    yield Text(LEFT, TOP - 18, "Unseen tokens", size=TITLE, bold=True)
    yield from legend_beside(named, RIGHT, TOP - 18)
    yield from bottom_axis(across, BOTTOM, across.ticks(6), "L2 error of the layer's map, one token")
