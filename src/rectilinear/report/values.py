"""The tables behind the figures: what is drawn, in numbers; a page shows them, and takes from them what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rectilinear.report.carriers import classes, shares, strings
from rectilinear.report.plots import deepest, depth, judged
from rectilinear.report.text import number, percent, plain, token
from rectilinear.results import LayerResult, ScanResult, Score

Columns = tuple[str, tuple[str, ...]]  # under one heading
KINDS = ("paper", "held-out", "95 %", "ordinary")


@dataclass(frozen=True)
class Values:
    """One table: `first` heads the rows' names, groups are (name, columns); a row is its name and its cells."""

    first: str
    groups: tuple[Columns, ...]
    rows: tuple[tuple[str, ...], ...]


def scan_values(result: ScanResult) -> dict[str, Values]:
    """Return the table behind each figure of a scan, one row a layer, by the figure's name."""
    step: Columns = ("step", ("norm ratio", "cosine", "± std"))
    columns: dict[str, tuple[Columns, ...]] = {
        "profile": (("score", KINDS), ("increment score", KINDS), ("sinks", ("count", "of the variance"))),
        "norms": (step, ("stream norm", ("median", "largest"))),
        "tails": (
            ("error of a token", ("median", "99th percentile", "largest", "tail index")),
            ("carried by the worst", ("5 %", "1 %", "0.1 %")),
        ),
        "spectra": (("outputs", ("anisotropy", "effective rank", "intrinsic dimension")),),
    }
    found = {
        name: Values("layer", groups, tuple((str(layer.layer), *CELLS[name](layer)) for layer in result.layers))
        for name, groups in columns.items()
    }
    found |= {"pairs": _pairs(result)} if "span_score" in result.arrays else {}
    return found | ({"carriers": carrier_values(result)} if classes(result) else {})


def overlay_values(results: Sequence[ScanResult], labels: Sequence[str]) -> Values:
    """Return the table behind the overlay: a row for each layer of the deepest scan, of the others the nearest one."""
    depths = [depth(result.layers) for result in results]
    rows = []
    for at in depth(deepest(results).layers):
        row = [f"{at:.2f}"]
        for result, known in zip(results, depths, strict=True):
            layer = result.layers[int(np.argmin(np.abs(np.array(known) - at)))]
            scores = (number(judged(layer.score)), number(judged(layer.increment)))
            row += [str(layer.layer), *scores, number(layer.norm_ratio, 3)]
        rows.append(tuple(row))
    names = ("layer", "score", "increment", "norm ratio")
    return Values("depth", tuple((plain(label), names) for label in labels), tuple(rows))


def carrier_values(result: ScanResult) -> Values:
    """Return the share of each layer's squared error that kinds of tokens carry, and the heaviest single tokens."""
    groups, cells = [], []
    for heading, rows, field, key in (
        ("of the squared error, by kind", classes(result), "error_classes", "class"),
        ("by token", strings(result), "error_tokens", "token"),
    ):
        found = shares(result, field, key)
        groups.append(
            (heading, tuple(token(plain(row.name, 18)) if key == "token" else plain(row.name) for row in rows))
        )
        cells += [found[row.name] for row in rows]
    lines = tuple((str(one.layer), *(percent(found.get(one.layer, 0.0)) for found in cells)) for one in result.layers)
    return Values("layer", tuple(groups), lines)


def _profile(layer: LayerResult) -> tuple[str, ...]:
    sinks = (f"{layer.sinks.count:,}", percent(layer.sinks.variance_share))
    return (*_score(layer.score), *_score(layer.increment), *sinks)


def _score(score: Score) -> tuple[str, ...]:
    return number(score.paper), number(score.heldout), interval(score), number(score.ordinary)


def interval(score: Score) -> str:
    """Return the interval of the held-out score."""
    return "–" if score.heldout_low is None else f"{number(score.heldout_low, 3)} – {number(score.heldout_high, 3)}"


def _norms(layer: LayerResult) -> tuple[str, ...]:
    step = (number(layer.norm_ratio), number(layer.cosine), number(layer.cosine_std))
    return (*step, number(layer.stream_norm_median, 1), number(layer.stream_norm_max, 1))


def _tails(layer: LayerResult) -> tuple[str, ...]:
    tails = layer.tails
    errors = (number(v, 2) for v in (tails.median, tails.p99, tails.max, tails.tail_index))
    return (*errors, *(percent(v) for v in (tails.share_5, tails.share_1, tails.share_01)))


def _spectra(layer: LayerResult) -> tuple[str, ...]:
    shape = layer.spectrum
    return number(shape.anisotropy), number(shape.effective_rank, 1), number(shape.intrinsic_dimension, 1)


CELLS = {"profile": _profile, "norms": _norms, "tails": _tails, "spectra": _spectra}


def _pairs(result: ScanResult) -> Values:
    """Return the spans by their first layer and their length."""
    whole, composed = result.arrays["span_score"], result.arrays["span_composed"]
    layers = len(whole)
    rows = []
    for first in range(layers):
        scores = zip(whole[first, first:].tolist(), composed[first, first:].tolist(), strict=True)
        rows.append((str(first), *("–" if np.isnan(a) else f"{number(a, 3)} / {number(b, 3)}" for a, b in scores)))
    lengths = tuple(f"{n} layer{'s' if n > 1 else ''}" for n in range(1, layers + 1))
    return Values("first layer", (("one map for the span / the maps of its layers in turn", lengths),), tuple(rows))
