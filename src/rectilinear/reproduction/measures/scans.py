"""Measures of scans: linearity along depth (Figure 1), contributions (Figure 3), tails of errors (Figure 9)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rectilinear.report.folder import DOCUMENT, load
from rectilinear.report.plots import depth
from rectilinear.reproduction.measures.found import Found, correlation, curve, loaded, spreads
from rectilinear.results import LayerResult, Plot, PlotCurve, ScanResult, mean

DEPTH = "normalised depth (layer / last layer)"
FAR = 2.0  # a layer's errors have a long tail where the 99th percentile is so many medians or more


def linearity(folders: Sequence[Path]) -> Found:
    """Return scores and increment scores over depth, by the paper's formula and, beside it, on unseen ordinary tokens.

    models_falling: models whose increment score is, by rank, the lower the deeper (correlation below -0.3).
    """
    scans = loaded(folders, DOCUMENT, load)
    if not scans:
        return Found({})
    summaries = [scan.summary() for scan in scans]
    score, ordinary = (mean(summary["score"][key] for summary in summaries) for key in ("paper", "ordinary"))
    increment = mean(summary["increment"]["paper"] for summary in summaries)
    every = [score for scan in scans for score in _of(scan, "score", "paper") if score is not None]
    slopes = [correlation([s for s in _of(scan, "increment", "paper") if s is not None]) for scan in scans]
    values = {
        "models": len(scans),
        "layers": len(every),
        **{
            f"{_name(scan)}, mean {kind}": s[key]["paper"]
            for scan, s in zip(scans, summaries, strict=True)
            for key, kind in (("score", "score"), ("increment", "increment score"))
        },
        "score_mean": score,
        "score_least": min(every),
        "score_ordinary": ordinary,
        "increment_mean": increment,
        "increment_ordinary": mean(summary["increment"]["ordinary"] for summary in summaries),
        "gap": None if score is None or increment is None else score - increment,
        "models_falling": sum(slope is not None and slope < -0.3 for slope in slopes),
    }
    titles = {"score": "Linearity score", "increment": "Linearity score without residual (increment score)"}
    plots = [Plot(title, tuple(c for scan in scans for c in _curves(scan, kind))) for kind, title in titles.items()]
    return Found(spreads(values), tuple(plots), DEPTH, notes=_notes(scans))


def contributions(folders: Sequence[Path]) -> Found:
    """Return the norm of what layers add over that of the stream."""
    scans = loaded(folders, DOCUMENT, load)
    if not scans:
        return Found({})
    ratios = [layer.norm_ratio for scan in scans for layer in scan.layers]
    values = {
        "models": len(scans),
        "layers": len(ratios),
        "ratio_median": statistics.median(ratios),
        "ratio_most": max(ratios),
        "share_below_half": sum(ratio < 0.5 for ratio in ratios) / len(ratios),
    }
    curves = tuple(curve(_name(scan), depth(scan.layers), [la.norm_ratio for la in scan.layers]) for scan in scans)
    return Found(spreads(values), (Plot("Norm of the contribution over norm of the stream", curves, log=True),), DEPTH)


def tails(folders: Sequence[Path]) -> Found:
    """Return how heavy the tails of errors are, and a histogram for every layer of the first scan."""
    scans = loaded(folders, DOCUMENT, load)
    ratios = [ratio for scan in scans for ratio in map(_reach, scan.layers) if ratio is not None]
    if not ratios:
        return Found({})
    shares = [layer.tails.share_1 for scan in scans for layer in scan.layers if layer.tails.share_1 is not None]
    values = {
        "layers": len(ratios),
        "long": sum(ratio >= FAR for ratio in ratios) / len(ratios),
        "reach": statistics.median(ratios),
        "worst_1": statistics.median(shares),
    }
    where = f"L2 error of the layer's linear map on a token of unseen text; heights: % of tokens, {_name(scans[0])}"
    return Found(spreads(values), tuple(_histograms(scans[0])), where, log=True)


def _histograms(scan: ScanResult) -> list[Plot]:
    counts, edges = scan.arrays.get("error_histogram"), scan.arrays.get("error_edges")
    if counts is None or edges is None or not counts.any():
        return []
    used = np.flatnonzero(counts.sum(0))
    first, last = used[0], used[-1] + 1
    middles = np.sqrt(edges[first:last] * edges[first + 1 : last + 1])
    share = 100 * counts[:, first:last] / np.maximum(counts.sum(1, keepdims=True), 1)
    return [
        Plot(f"layer {layer.layer}", (curve(_name(scan), middles, row),), log=True)
        for layer, row in zip(scan.layers, share.tolist(), strict=True)
    ]


def _reach(layer: LayerResult) -> float | None:
    """Return the 99th percentile of a layer's errors in medians."""
    median, far = layer.tails.median, layer.tails.p99
    return far / median if far is not None and median else None


def _curves(scan: ScanResult, kind: str) -> list[PlotCurve]:
    x = depth(scan.layers)
    named = (("paper", "paper's formula", False), ("ordinary", "unseen text, no sinks", True))
    found = [curve(f"{_name(scan)}, {says}", x, _of(scan, kind, key), dashed=dashed) for key, says, dashed in named]
    return [one for one in found if any(value is not None for value in one.y)]


def _of(scan: ScanResult, kind: str, key: str) -> list[float | None]:
    return [getattr(getattr(layer, kind), key) for layer in scan.layers]


def _name(scan: ScanResult) -> str:
    return str(scan.provenance.get("model"))


def _notes(scans: Sequence[ScanResult]) -> tuple[str, ...]:
    return tuple(f"{_name(scan)}: {note}" for scan in scans for note in scan.warnings)
