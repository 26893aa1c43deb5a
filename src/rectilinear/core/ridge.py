"""Weighted ridge regression from streamed sums: how a projection must change to make up for what was removed."""

from __future__ import annotations

import torch
from torch import Tensor

from rectilinear.core.linear import reduced
from rectilinear.core.products import full_precision, zeros64


class Ridge:
    """Gathers weighted products of features a [n, f] and targets r [n, d]; rows are used and dropped.

    With r the error that the present weights leave, the solution is the change to them, and the penalty on it is ridge
    towards their old values. `intercept` adds a constant feature, unpenalised, whose weights change a bias.
    """

    def __init__(self, f: int, d: int, *, intercept: bool = False, device: torch.device | str = "cpu") -> None:
        size = f + intercept
        self.intercept = intercept
        self.n = 0
        self.aa, self.ar = zeros64(size, size, device=device), zeros64(size, d, device=device)

    def update(self, a: Tensor, r: Tensor, weight: Tensor) -> None:
        """Add rows a [n, f], r [n, d] with non-negative weights [n]; products in float32, sums in float64."""
        root = weight.float().sqrt()[:, None]
        rows = a.float() * root
        if self.intercept:
            rows = torch.cat([rows, root], dim=1)
        with full_precision():
            self.aa += rows.T @ rows
            self.ar += rows.T @ (r.float() * root)
        self.n += len(a)

    def solve(self, ridge: float, rank: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the change of weights [f, d] and of the bias [d] (None without intercept), float64.

        ridge: penalty as a multiple of the mean of the features' weighted squares. rank: of the weights at most; the
        fitted values are projected on their leading directions (reduced-rank regression). It takes an intercept.
        """
        features = len(self.aa) - self.intercept
        diagonal = self.aa.diagonal()[:features]
        # No features at all still needs a positive definite matrix; the solution is zero then.
        level = diagonal.mean().clamp(min=torch.finfo(torch.float64).tiny)
        penalty = torch.full((len(self.aa),), ridge * float(level), dtype=torch.float64, device=self.aa.device)
        if self.intercept:
            penalty[-1] = torch.finfo(torch.float64).eps * float(self.aa[-1, -1])
        loaded = self.aa + penalty.diag()
        change = torch.cholesky_solve(self.ar, torch.linalg.cholesky(loaded))
        if rank is not None:
            return self._reduced(change[:features], rank)
        return change[:features], change[features] if self.intercept else None

    def _reduced(self, weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        total, sums = self.aa[-1, -1], self.aa[-1, :-1]
        spread = torch.addr(self.aa[:-1, :-1], sums, sums, alpha=-1 / float(total))
        weight = reduced(weight, spread, rank)
        return weight, (self.ar[-1] - sums @ weight) / total
