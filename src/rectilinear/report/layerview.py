"""What a page shows of one layer, and of a passage of text in its colours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from markupsafe import Markup

from rectilinear.report.histogram import histograms
from rectilinear.report.svg import inline
from rectilinear.report.text import number
from rectilinear.report.values import Values
from rectilinear.results import LayerResult, ScanResult

DIGITS = 3  # of an error in the page's data


def layer_views(result: ScanResult, values: dict[str, Values]) -> list[dict[str, Any]]:
    """Return for each layer its result, what is said of it in one line, its histogram and the figures' values."""
    drawn = histograms(result)
    return [
        {
            "layer": layer,
            "said": said(layer),
            "bars": Markup(inline(drawn[row], f"Errors of layer {layer.layer}")) if drawn else None,
            "facts": [fact for one in values.values() if one.first == "layer" for fact in _facts(one, row)],
        }
        for row, layer in enumerate(result.layers)
    ]


def said(layer: LayerResult) -> str:
    """Return the strictest scores of a layer, and its sinks, in one line."""
    kind = "paper" if layer.score.ordinary is None else "ordinary"
    score, added = (number(getattr(one, kind)) for one in (layer.score, layer.increment))
    sinks = f" · {layer.sinks.count:,} sinks" if layer.sinks.count else ""
    return f"score {score} · increment score {added} ({kind}){sinks}"


def passage_data(result: ScanResult) -> dict[str, Any] | None:
    """Return the errors of the kept passage, per layer: `error`, one a token, and `sink`, the places of sink tokens.

    None where the scan kept no passage or its arrays are not at hand.
    """
    error, sink = result.arrays.get("passage_error"), result.arrays.get("passage_sink")
    if result.passage is None or error is None or sink is None:
        return None
    return {
        "error": [[_short(value) for value in row] for row in error.tolist()],
        "sink": [np.flatnonzero(row).tolist() for row in sink],
    }


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None


def _facts(values: Values, row: int) -> Iterable[tuple[str, list[tuple[str, str]]]]:
    """Yield the groups of a table's row, each with its columns and cells."""
    cells = iter(values.rows[row][1:])
    for name, columns in values.groups:
        yield name, [(column, next(cells)) for column in columns]
