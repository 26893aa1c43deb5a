"""Figures of a scan and of several, as drawings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from rectilinear.report.carriermap import carrier_map
from rectilinear.report.chart import Curve, Panel, stacked
from rectilinear.report.errormap import error_map
from rectilinear.report.shapes import BLUE, CYCLE, GREEN, ORANGE, PINK, RED, SOFT, Drawing
from rectilinear.report.triangle import triangles
from rectilinear.results import LayerResult, ScanResult, Score

FLOOR = -0.25  # scores below are drawn as arrows at the edge: one bad layer must not flatten the rest
DASHED, DOTTED = (7.0, 5.0), (1.0, 5.0)


def profile(result: ScanResult) -> Drawing:
    """Draw score and increment score per layer: paper, held-out with its interval, ordinary; sinks marked."""
    x = _index(result)
    sinks = x[[layer.sinks.count > 0 for layer in result.layers]]
    marks = Curve(sinks, sinks, RED, "sinks", marker="diamond", lined=False)
    panels = []
    for name, title in (("score", "Score (with residual)"), ("increment", "Increment score (without residual)")):
        scores: list[Score] = [getattr(layer, name) for layer in result.layers]
        paper, heldout, ordinary, low, high = (
            values_of(getattr(s, kind) for s in scores)
            for kind in ("paper", "heldout", "ordinary", "heldout_low", "heldout_high")
        )
        curves = [
            Curve(x, paper, SOFT, "paper: all tokens, in-sample", marker="", dash=DASHED),
            Curve(x, heldout, BLUE, "held-out, 95 % interval", band=(low, high)),
            Curve(x, ordinary, ORANGE, "ordinary: held-out, no sinks", marker="square"),
        ]
        panels.append(Panel(title, curves, score_limits([paper, heldout, ordinary]), marks=marks))
    return stacked(panels, "layer", _ends(x), 240, legend=[*panels[0].curves, marks], stops=_stops(x))


def norms(result: ScanResult) -> Drawing:
    """Draw norm ratio (Figure 3 of the paper), adjacent cosine with its spread, and stream norms."""
    x = _index(result)
    ratio, cosine, spread, median, largest = (
        values_of(getattr(layer, name) for layer in result.layers)
        for name in ("norm_ratio", "cosine", "cosine_std", "stream_norm_median", "stream_norm_max")
    )
    band = (cosine - spread, np.minimum(cosine + spread, 1))
    streams = [Curve(x, largest, RED, "largest", marker="up"), Curve(x, median, BLUE, "median")]
    panels = [
        Panel("Norm ratio (contribution over stream)", [Curve(x, ratio, GREEN)], log=True),
        Panel("Adjacent cosine (mean ± standard deviation)", [Curve(x, cosine, BLUE, band=band)]),
        Panel("Stream norm (after the layer)", streams, log=True, legend=True),
    ]
    return stacked(panels, "layer", _ends(x), 180, stops=_stops(x))


def tails(result: ScanResult) -> Drawing:
    """Draw the per-token error histogram of every layer (Figure 9 of the paper) and the worst tokens' share."""
    return error_map(
        _index(result),
        {key: values_of(getattr(layer.tails, key) for layer in result.layers) for key in ("median", "p99")},
        {
            label: values_of(getattr(layer.tails, key) for layer in result.layers)
            for key, label in (("share_5", "5 %"), ("share_1", "1 %"), ("share_01", "0.1 %"))
        },
        result.arrays.get("error_histogram"),
        result.arrays.get("error_edges"),
    )


def spectra(result: ScanResult) -> Drawing:
    """Draw anisotropy, effective rank and intrinsic dimension of each layer's outputs."""
    x = _index(result)
    titles = {
        "anisotropy": "Anisotropy (share of the first direction)",
        "effective_rank": "Effective rank",
        "intrinsic_dimension": "Intrinsic dimension (TwoNN)",
    }
    panels = []
    for (name, title), colour in zip(titles.items(), (PINK, GREEN, BLUE), strict=True):
        y = values_of(getattr(layer.spectrum, name) for layer in result.layers)
        panels.append(Panel(title, [Curve(x, y, colour)], (0.0, 1.08 * (np.nanmax(y, initial=0.0) or 1.0))))
    return stacked(panels, "layer", _ends(x), 150, stops=_stops(x))


def overlay(results: Sequence[ScanResult], labels: Sequence[str]) -> Drawing:
    """Draw several models over normalised depth: scores (Figure 1 of the paper) and norm ratio (Figure 3)."""
    parts: dict[str, Callable[[LayerResult], float | None]] = {
        "Score, held-out": lambda layer: judged(layer.score),
        "Increment score, held-out": lambda layer: judged(layer.increment),
        "Norm ratio (contribution over stream)": lambda layer: layer.norm_ratio,
    }
    panels = []
    for title, pick in parts.items():
        curves = [
            Curve(
                np.array(depth(result.layers)),
                values_of(pick(layer) for layer in result.layers),
                CYCLE[index % len(CYCLE)],
                label,
                dash=((), DASHED, DOTTED)[index // len(CYCLE) % 3],
            )
            for index, (result, label) in enumerate(zip(results, labels, strict=True))
        ]
        panels.append(Panel(title, curves, score_limits([curve.y for curve in curves])))
    panels[-1] = replace(panels[-1], limits=None, log=True)
    depths = "normalised depth (layer / last layer)"
    stops = [(at, f"depth {at:.2f}") for at in depth(deepest(results).layers)]
    return stacked(panels, depths, (-0.02, 1.02), 220, whole=False, legend=panels[0].curves, stops=stops)


FIGURES: dict[str, Callable[[ScanResult], Drawing]] = {
    "profile": profile,
    "norms": norms,
    "tails": tails,
    "spectra": spectra,
}


def scan_figures(result: ScanResult) -> dict[str, Drawing]:
    """Return the figures of one scan by file name; no tails where nothing was held out."""
    judged_tokens = any(layer.tails.median is not None for layer in result.layers)
    figures = {name: draw(result) for name, draw in FIGURES.items() if name != "tails" or judged_tokens}
    figures |= {"carriers": carrier_map(result)} if any(layer.error_classes for layer in result.layers) else {}
    return figures | ({"pairs": triangles(result.arrays)} if "span_score" in result.arrays else {})


def deepest(results: Sequence[ScanResult]) -> ScanResult:
    """Return the first of the scans with the most layers."""
    return max(results, key=lambda result: len(result.layers))


def depth(layers: Sequence[LayerResult]) -> list[float]:
    """Return each layer's index over the last one's, 0 to 1."""
    return [layer.layer / max(layers[-1].layer, 1) for layer in layers]


def judged(score: Score) -> float | None:
    """Return the held-out score, the paper's where nothing was held out."""
    return score.paper if score.heldout is None else score.heldout


def values_of(values: Iterable[float | None]) -> np.ndarray:
    """Return floats with gaps (NaN) for None."""
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def score_limits(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return limits around the curves, no lower than FLOOR and no higher than 1, and a margin."""
    known = np.concatenate([curve[np.isfinite(curve)] for curve in curves])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    low, high = max(low, FLOOR), max(min(high, 1.0), FLOOR)
    margin = max(0.08 * (high - low), 0.01)
    return low - 1.5 * margin, high + margin


def _index(result: ScanResult) -> np.ndarray:
    return np.array([layer.layer for layer in result.layers])


def _stops(x: np.ndarray) -> list[tuple[float, str]]:
    return [(at, f"layer {at}") for at in x.tolist()]


def _ends(x: np.ndarray) -> tuple[float, float]:
    return x[0] - 0.5, x[-1] + 0.5
