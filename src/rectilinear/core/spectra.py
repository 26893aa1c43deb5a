"""The shape of a cloud of rows: how much one direction dominates, and how many dimensions it really has."""

from __future__ import annotations

import torch
from torch import Tensor

from rectilinear.core.moments import full_precision

CANDIDATES = 6  # nearest by float32 products, measured again by exact differences


def anisotropy(eigenvalues: Tensor) -> float | None:
    """Return the largest covariance eigenvalue over the trace, of eigenvalues [d]; None where all are zero.

    Source: LLM-Microscope (arXiv 2502.15007), section 3.
    """
    values = eigenvalues.clamp(min=0)
    total = float(values.sum())
    return float(values.max()) / total if total > 0 else None


def effective_rank(eigenvalues: Tensor) -> float | None:
    """Return exp(entropy) of the normalised eigenvalues [d], between 1 and d (Roy and Vetterli, 2007)."""
    values = eigenvalues.clamp(min=0)
    total = float(values.sum())
    if total <= 0:
        return None
    p = values[values > 0] / total
    return float(torch.exp(-(p * p.log()).sum()))


def two_nn(points: Tensor, *, discard: float = 0.1, block: int = 512) -> float | None:
    """Return the TwoNN intrinsic dimension of points [n, d] (Facco et al., 2017).

    The ratio of the second to the first neighbour's distance is Pareto distributed with the dimension as exponent; the
    exponent is the slope of -log(1 - F) over log(ratio), the top `discard` of ratios left out. Distances are taken
    `block` rows at a time: candidates by products, then exactly. None with fewer than 10 points that differ.
    """
    points = points.float() - points.double().mean(0).float()
    n = len(points)
    if n < 10:
        return None
    squares = points.square().sum(1)
    ratios = []
    for start in range(0, n, block):
        rows = points[start : start + block]
        with full_precision():
            near = squares - 2 * rows @ points.T
        near[torch.arange(len(rows)), torch.arange(start, start + len(rows))] = torch.inf
        # Products cancel where norms are large beside distances: they only nominate, differences decide.
        index = near.topk(min(CANDIDATES, n - 1), largest=False).indices
        exact = (points[index] - rows[:, None]).double().norm(dim=2).sort(1).values
        ratios.append(exact[:, 1] / exact[:, 0])
    ratio = torch.cat(ratios)
    ratio = ratio[torch.isfinite(ratio)].sort().values
    kept = int(len(ratio) * (1 - discard))
    if kept < 9:
        return None
    x = ratio[:kept].log()
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / len(ratio))
    denominator = float(x.square().sum())
    return float((x * y).sum()) / denominator if denominator > 0 else None
