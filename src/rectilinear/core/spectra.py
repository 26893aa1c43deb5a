"""The shape of a cloud of rows: how much one direction dominates, and how many dimensions it really has."""

from __future__ import annotations

import torch
from torch import Tensor

from rectilinear.core.moments import EPS32
from rectilinear.core.products import full_precision

CANDIDATES = 3  # nearest by float32 products, measured again by differences
LEAST_POINTS = 10


def anisotropy(eigenvalues: Tensor) -> float | None:
    """Return the largest covariance eigenvalue over the trace, of eigenvalues [d]; None where all are zero.

    Between 1/d (all directions alike) and 1 (a line). Negative eigenvalues are rounding and count as zero.
    Source: Razzhigaev et al., The Shape of Learning (arXiv 2311.05928).
    """
    shares = _shares(eigenvalues)
    return None if shares is None else float(shares.max())


def effective_rank(eigenvalues: Tensor) -> float | None:
    """Return exp(entropy) of the normalised eigenvalues [d], between 1 and d; None where all are zero.

    Negative eigenvalues are rounding and count as zero. Source: Roy and Vetterli, The effective rank (EUSIPCO 2007).
    """
    shares = _shares(eigenvalues)
    return None if shares is None else float(torch.special.entr(shares).sum().exp())


def two_nn(points: Tensor, *, discard: float = 0.1, block: int = 256) -> float | None:
    """Return the TwoNN intrinsic dimension of finite points [n, d]; repeated points count once.

    The ratio of the second to the first neighbour's distance is Pareto distributed with the dimension as exponent; the
    exponent is the slope through the origin of -log(1 - F) over log(ratio), the top `discard` of ratios left out.
    Time n^2 d, memory `block` times n. None with fewer than 10 points that differ, or where every ratio is 1.
    Source: Facco et al., Scientific Reports 7 (2017) 12140.
    """
    points = points if points.dtype == torch.float64 else points.float()
    nearest = _two_nearest(points, block)
    if nearest is not None and not bool(nearest[:, 0].all()):  # sorting out the repeated costs more than the search
        points = torch.unique(points, dim=0)
        nearest = _two_nearest(points, block)
    if nearest is None:
        return None
    n = len(points)
    kept = min(int(n * (1 - discard)), n - 1)  # at F = 1 the logarithm has no value
    x = (nearest[:, 1] / nearest[:, 0]).double().log().sort().values[:kept]
    y = -torch.log1p(-torch.arange(1, kept + 1, dtype=x.dtype, device=x.device) / n)
    denominator = float(x.square().sum())
    return float(x @ y) / denominator if denominator > 0 else None


def _shares(eigenvalues: Tensor) -> Tensor | None:
    values = eigenvalues.double().clamp(min=0)
    total = values.sum()
    return values / total if total > 0 else None


def _two_nearest(points: Tensor, block: int) -> Tensor | None:
    """Return the distances [n, 2] of points [n, d] to their two nearest others, None for too few points."""
    n = len(points)
    if n < LEAST_POINTS:
        return None
    mean = points.mean(0, dtype=torch.float64).to(points)  # any point near it will do, so long as it is one for all
    rough = (points - mean).float()
    # Products cancel where norms are large beside distances, so they only nominate, by a lower bound on the distance
    # (rounding errors in a sum of d terms grow like sqrt(d): Higham and Mary, 2019); differences decide.
    squares = rough.square().sum(1) * (1 - 4 * EPS32 * points.shape[1] ** 0.5)
    return torch.cat([_of_block(points, rough, squares, start, min(start + block, n)) for start in range(0, n, block)])


def _of_block(points: Tensor, rough: Tensor, squares: Tensor, start: int, stop: int) -> Tensor:
    """Return the distances [stop - start, 2] of points[start:stop] to their two nearest others.

    rough: the points in float32, centred; squares: their squared norms [n], a little short.
    """
    rows = points[start:stop]
    with full_precision():
        lower = torch.addmm(squares[start:stop, None] + squares, rough[start:stop], rough.T, alpha=-2)
    lower.diagonal(start).fill_(torch.inf)
    bound, index = lower.topk(CANDIDATES, largest=False)
    nearest = (points[index] - rows[:, None]).norm(dim=2).sort(1).values[:, :2]
    # Beyond the last candidate nothing is nearer than its bound. Rows where that does not settle it are few.
    for row in (nearest[:, 1].square() > bound[:, -1]).nonzero().flatten().tolist():
        distances = (points - rows[row]).norm(dim=1)
        distances[start + row] = torch.inf
        nearest[row] = distances.topk(2, largest=False).values
    return nearest
