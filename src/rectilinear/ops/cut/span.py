"""The `span` selector: the window of layers that one linear map stands in for best."""

from __future__ import annotations

import torch
from torch import Tensor

from rectilinear.core.linear import error_of, fit
from rectilinear.core.moments import Moments
from rectilinear.ops.cut.selectors import Path, Search
from rectilinear.ops.cut.streams import Chunks, rows

MASSIVE = 10.0  # medians of the stream norm: tokens above are sinks, and left out


def span(search: Search, count: int) -> Path:
    """Take the window whose one affine map errs least on windows that it was not fitted on.

    What `scan --pairs` measures, for windows of layers that may all go: squared error over the spread of the window's
    output, sink tokens left out. ReplaceMe and UIDL take the window by its angle instead.
    """
    found: Path = {}
    for size in range(1, count + 1):
        windows = [tuple(range(i, i + size)) for i in range(len(search.runner.stack) - size + 1)]
        errors = {w: _error(search, w[0], w[-1] + 1) for w in windows if not search.protect.intersection(w)}
        if errors:
            found[size] = min(errors, key=errors.__getitem__)
    return found


def _error(search: Search, start: int, stop: int) -> float:
    """Return the share of the spread at `stop` that the map from `start` leaves, on the judge's windows."""
    below, above = search.teacher.at(start), search.teacher.at(stop)
    cut = search.fit_from
    unseen = _moments(below[:cut], above[:cut])
    total = float(unseen.syy)
    return error_of(fit(_moments(below[cut:], above[cut:])), unseen) / total if total > 0 else 0.0


def _moments(below: Chunks, above: Chunks) -> Moments:
    d = below[0].shape[-1]
    moments = Moments.empty(d, d, below[0].device)
    for x, y in zip(below, above, strict=True):
        x_rows, y_rows = rows(x).float(), rows(y).float()
        moments.update(x_rows, y_rows - x_rows, leave_out=_massive(x_rows) | _massive(y_rows))
    return moments


def _massive(stream: Tensor) -> Tensor:
    norms = stream.norm(dim=1)
    return norms > MASSIVE * torch.quantile(norms, 0.5)
