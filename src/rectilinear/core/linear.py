"""Affine maps fitted from moments, and the two linearity scores of one fit.

Source: "Your Transformer is Secretly Linear" (arXiv 2405.12250), section 3: the score is 1 minus the normalised squared
error of the best linear map of the centred input; "without residual" the target is y - x. One fit serves both, since
the best map of y - x is that of y minus the identity and leaves the same error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rectilinear.core.moments import Moments
from rectilinear.core.products import add_halves, halves

THIN = 4  # a product is thin where its rank is at most a fourth of the columns


@dataclass(frozen=True)
class AffineMap:
    """z ~ x @ weight + bias; weight [p, q], bias [q], float64 as solved."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to rows x [n, p] in their own precision; returns [n, q]."""
        return torch.addmm(self.bias.to(x), x, self.weight.to(x))

    def miss(self, x: Tensor, z: Tensor) -> Tensor:
        """Return by how much the map of rows x [n, p] misses z [n, q].

        bfloat16 rows are taken as exact and give float32: rounded weights would err by more than the map does.
        """
        if x.dtype == torch.bfloat16:
            return add_halves(self.bias.float() - z, x, halves(self.weight.float()))
        return self(x).sub_(z)

    def to(self, dtype: torch.dtype) -> AffineMap:
        """Return the map with weight and bias in `dtype`, row by row as a file has them: so products round alike."""
        return AffineMap(self.weight.to(dtype, memory_format=torch.contiguous_format), self.bias.to(dtype))


@dataclass(frozen=True)
class Change:
    """What takes one affine map of x to another: x @ left @ right + bias; left [p, r], right [r, q], bias [q].

    Maps that were fitted with and without a few rows differ by as many directions, and two thin products take less time
    than a whole one.
    """

    left: Tensor
    right: Tensor
    bias: Tensor

    def miss_(self, missed: Tensor, x: Tensor) -> Tensor:
        """Turn what the first map of rows x [n, p] misses, [n, q], into what the second one misses."""
        if x.dtype == torch.bfloat16:
            along = add_halves(missed.new_zeros(len(x), self.left.shape[1]), x, halves(self.left.float()))
        else:
            along = x @ self.left.to(x)
        return missed.addmm_(along, self.right.to(missed)).add_(self.bias.to(missed))

    def after(self, first: AffineMap) -> AffineMap:
        """Return the second map, in the precision of the first."""
        weight = torch.addmm(first.weight, self.left.to(first.weight), self.right.to(first.weight))
        return AffineMap(weight, first.bias + self.bias.to(first.bias))

    def to(self, dtype: torch.dtype) -> Change:
        """Return the change in `dtype`, row by row as a file has it."""
        left, right = (part.to(dtype, memory_format=torch.contiguous_format) for part in (self.left, self.right))
        return Change(left, right, self.bias.to(dtype))


@dataclass(frozen=True)
class Scores:
    """Linearity of y on x and of y - x on x, in [0, 1]; None where the target has no variance or there are no rows."""

    score: float | None
    increment: float | None


def scores(moments: Moments) -> Scores:
    """Return the in-sample score and increment score of least squares, with an intercept; needs p = q."""
    error = residual(moments)
    return Scores(ratio(error, float(moments.syy)), ratio(error, float(moments.szz)))


def ratio(error: float, total: float) -> float | None:
    """Return 1 - error / total, None where the total is zero."""
    return 1 - error / total if total > 0 else None


def residual(moments: Moments) -> float:
    """Return the squared error that the best affine map of x leaves in z, summed over rows and columns."""
    root, keep = _whitener(moments)
    explained = root.solve(_rows(moments.sxz, keep)).square().sum()
    return min(max(float(moments.szz - explained), 0.0), float(moments.szz))


def fit(moments: Moments, *, ridge: float = 0.0, rank: int | None = None) -> AffineMap:
    """Return the affine map that minimises the squared error in z.

    ridge: penalty on the weights, as a multiple of the mean variance of x. rank: the best map of at most that rank
    (reduced-rank regression: the fitted values are projected on their leading directions). Directions in which x does
    not vary get weight zero, so fewer rows than columns give the minimum-norm map in units of each column's spread.
    """
    sxz = moments.sxz
    if ridge > 0:
        loaded = moments.sxx_lower
        loaded.diagonal().add_(ridge * loaded.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny))
        weight = torch.cholesky_solve(sxz, torch.linalg.cholesky(loaded))
    else:
        weight = _least_squares(sxz, *_whitener(moments))
    if rank is not None and rank < min(weight.shape):
        weight = reduced(weight, moments.sxx, rank)
    return _through_means(weight, moments)


def fit_both(moments: Moments, few: Moments) -> tuple[AffineMap, AffineMap | Change]:
    """Return the map fitted on `moments`, and that fitted on both, as a change of the first where `few` are few rows.

    With scatters A of x and B of x and z, to which few rows add U M U^T and U N, the weights W = A^-1 B change by
    A^-1 U (1 + M U^T A^-1 U)^-1 (N - M U^T W), by Woodbury's identity. Directions U are those of the few rows about
    their mean, found as the range of their scatter (Halko, Martinsson and Tropp, SIAM Review 53, 2011, 4.1), and of
    that mean about the other's.
    """
    root, keep = _whitener(moments)
    weight = _least_squares(moments.sxz, root, keep)
    first = _through_means(weight, moments)
    if keep is not None or root.triangle is None or few.n > len(weight) // THIN:
        return first, fit(moments.merge(few))
    share = few.n / (moments.n + few.n)
    gap_x, gap_z = few.mean_x - moments.mean_x, few.mean_z - moments.mean_z
    scatter = few.sxx
    draw = torch.randn(len(weight), few.n, dtype=weight.dtype, generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(scatter @ draw.to(weight.device)).Q
    directions = torch.cat((basis, gap_x[:, None]), 1)
    between = moments.n * share
    inner = torch.block_diag(basis.T @ scatter @ basis, gap_x.new_full((1, 1), between))
    cross = torch.cat((basis.T @ few.sxz, between * gap_z[None]))
    solved = root.solve_transposed(root.solve(directions))
    within = inner @ (directions.T @ solved)
    within.diagonal().add_(1)
    # Columns of A^-1 U are nearly parallel, and what they add up to would cancel in float32.
    left, turn = torch.linalg.qr(solved)
    right = turn @ torch.linalg.solve(within, cross - inner @ (directions.T @ weight))
    along = (moments.mean_x + share * gap_x) @ left @ right
    return first, Change(left, right, share * (gap_z - gap_x @ weight) - along)


def in_turn(first: AffineMap, then: AffineMap) -> AffineMap:
    """Return what two maps of contributions add together: first(x), and then(x + first(x)) of that; weights [d, d]."""
    weight = first.weight + then.weight + first.weight @ then.weight
    return AffineMap(weight, first.bias + then.bias + first.bias @ then.weight)


def reduced(weight: Tensor, scatter: Tensor, rank: int) -> Tensor:
    """Return the weight [p, q] of rank `rank` or less whose fitted values of x come closest to those of `weight`.

    scatter: of x, [p, p]. The values are projected on their leading directions.
    """
    if rank == 0:
        return torch.zeros_like(weight)
    leading = torch.linalg.eigh(weight.T @ scatter @ weight).eigenvectors[:, -rank:]
    return weight @ leading @ leading.T


def error_of(fitted: AffineMap, moments: Moments) -> float:
    """Return the summed squared error of a given map on the rows behind `moments`, from the moments alone.

    With moments of unseen rows this is the held-out error, without touching a row again.
    """
    weight = fitted.weight
    offset = moments.mean_z - moments.mean_x @ weight - fitted.bias
    spread = moments.szz - 2 * (weight * moments.sxz).sum() + (weight * (moments.sxx @ weight)).sum()
    return max(float(spread + moments.n * offset.square().sum()), 0.0)


@dataclass(frozen=True)
class _Whitener:
    """A square root of the scatter of the columns kept: solve(b) = R^-1 b with R R^T = sxx on its numerical range."""

    triangle: Tensor | None
    basis: Tensor | None

    def solve(self, b: Tensor) -> Tensor:
        if self.triangle is not None:
            return torch.linalg.solve_triangular(self.triangle, b, upper=False)
        assert self.basis is not None
        return self.basis.T @ b

    def solve_transposed(self, b: Tensor) -> Tensor:
        if self.triangle is not None:
            return torch.linalg.solve_triangular(self.triangle.T, b, upper=True)
        assert self.basis is not None
        return self.basis @ b


def _least_squares(sxz: Tensor, root: _Whitener, keep: Tensor | None) -> Tensor:
    """Return the weights [p, q] of least squares, zero for columns of x that do not vary."""
    solved = root.solve_transposed(root.solve(_rows(sxz, keep)))
    return solved if keep is None else torch.zeros_like(sxz).index_put((keep,), solved)


def _through_means(weight: Tensor, moments: Moments) -> AffineMap:
    """Return the map of that weight [p, q] that takes the mean of x to that of z."""
    return AffineMap(weight, moments.mean_z - moments.mean_x @ weight)


def _rows(matrix: Tensor, keep: Tensor | None) -> Tensor:
    return matrix if keep is None else matrix[keep]


def _whitener(moments: Moments) -> tuple[_Whitener, Tensor | None]:
    """Return the whitener and the columns [p] of x that vary, None where all do.

    Columns are put on one scale first: the verdict "no variance left" must not depend on the units of a column.
    Cholesky is five times cheaper than eigenvalues and as good while no pivot comes near the round-off of the products.
    """
    sxx = moments.sxx_lower
    variance = sxx.diagonal()
    # A constant column leaves only the round-off of its own square about the shift.
    varies = variance > 16 * moments.eps * moments.xx.diagonal()
    keep = None if bool(varies.all()) else varies
    scale = _rows(variance, keep).sqrt()
    correlation = sxx if keep is None else sxx[keep][:, keep]
    correlation = correlation.div_(scale[:, None]).div_(scale)
    triangle, failed = torch.linalg.cholesky_ex(correlation)
    if not failed and (len(scale) == 0 or float(triangle.diagonal().square().min()) > 16 * moments.eps):
        return _Whitener(triangle.mul_(scale[:, None]), None), keep
    values, vectors = torch.linalg.eigh(correlation)
    # Relative cut-off: what lies below is the round-off of the products, and is never divided by.
    real = values > 4 * max(moments.eps, len(scale) * torch.finfo(torch.float64).eps) * values[-1]
    rank = min(int(real.sum()), moments.n - 1)
    chosen = slice(len(values) - rank, None)
    return _Whitener(None, vectors[:, chosen] / values[chosen].sqrt() / scale[:, None]), keep
