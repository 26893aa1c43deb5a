"""Cross products of the positions of a stream: all that the linear map from any position to any later one needs.

What `Moments` is for one pair of positions this is for all of them: the products of one position with itself are shared
by every pair that starts or ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from rectilinear.core.moments import EPS32, Moments
from rectilinear.core.products import full_precision, zeros64
from rectilinear.errors import ResultError


class Grams:
    """Sums and products of rows at positions 0 to `positions` - 1, for pairs at most `width` apart; they stream.

    Rows are shifted by the mean of the first batch; products are float32 in a batch and float64 in the sum. Memory is
    8 d^2 bytes a block, `blocks(positions, width)` of them.
    """

    def __init__(self, positions: int, d: int, *, width: int, device: torch.device | str = "cpu") -> None:
        zeros = partial(zeros64, device=device)

        self.n, self.fixed = 0, False
        self.positions, self.width = positions, width
        self.shift, self._sum = zeros(positions, d), zeros(positions, d)
        self._products = {
            (i, j): zeros(d, d) for i in range(positions) for j in range(i, min(i + width + 1, positions))
        }

    @staticmethod
    def blocks(positions: int, width: int) -> int:
        """Return how many blocks are kept."""
        return sum(min(width, positions - 1 - i) + 1 for i in range(positions))

    def update(self, rows: Sequence[Tensor]) -> None:
        """Add the rows [n, d] of the same tokens at every position, in float32 or higher."""
        if not len(rows[0]):
            return
        if self.n == 0 and not self.fixed:
            self.shift = torch.stack([x.mean(0).float().double() for x in rows])
        shifted = [x.float() - shift.float() for x, shift in zip(rows, self.shift, strict=True)]
        with full_precision():
            for (i, j), total in self._products.items():
                total += shifted[i].T @ shifted[j]
        self._sum += torch.stack([x.sum(0) for x in shifted])
        self.n += len(rows[0])

    def emptied(self) -> Grams:
        """Return the products of no rows about the same shifts, which the rows to come leave as they are."""
        empty = Grams(*self._sum.shape, width=self.width, device=self._sum.device)
        empty.shift, empty.fixed = self.shift, True
        return empty

    def to_(self, device: torch.device) -> None:
        """Move everything to another device."""
        self.shift, self._sum = self.shift.to(device), self._sum.to(device)
        self._products = {pair: total.to(device) for pair, total in self._products.items()}

    def about(self, shift: Tensor) -> Grams:
        """Return the products of the same rows about another shift [positions, d]."""
        if torch.equal(shift, self.shift):
            return self
        other = self.emptied()
        other.shift = shift
        other.merge_(self)
        return other

    def merge_(self, other: Grams) -> None:
        """Add what another one has gathered of the same positions, about whatever shifts."""
        if not other.n:
            return
        if not self.n and not self.fixed:
            self.shift = other.shift
        moved = other.shift - self.shift
        for (i, j), total in self._products.items():
            total += other._products[i, j]
            total += torch.outer(other._sum[i], moved[j]) + torch.outer(moved[i], other._sum[j] + other.n * moved[j])
        self._sum += other._sum + other.n * moved
        self.n += other.n

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums and products by name, not copied: what adds up over sets of rows about the same shifts."""
        return {"sum": self._sum} | {f"{i}.{j}": total for (i, j), total in self._products.items()}

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors, ready for safetensors."""
        header = torch.tensor([self.n, self.width])
        return {"header": header, "shift": self.shift.cpu(), **{k: v.cpu() for k, v in self.tensors().items()}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Grams:
        """Rebuild from `to_tensors`; raises ResultError where a part is missing."""
        try:
            n, width = tensors["header"].flatten().tolist()
            positions, d = tensors["sum"].shape
            if positions > len(tensors):
                raise ValueError(f"the products of {positions} positions")
            grams = cls(positions, d, width=width)
            grams.n, grams.shift, grams._sum = n, tensors["shift"], tensors["sum"]
            grams._products = {(i, j): tensors[f"{i}.{j}"] for i, j in grams._products}
        except (KeyError, ValueError) as error:
            raise ResultError(
                f"expected saved products of positions, got a file without {error}; scan again"
            ) from error
        return grams

    def moments(self, start: int, stop: int) -> Moments:
        """Return the moments of x at `start` and z = y - x with y at `stop`; raises KeyError beyond the width."""
        xx, xy, yy = (self._products[pair] for pair in ((start, start), (start, stop), (stop, stop)))
        return Moments(
            n=self.n,
            shift_x=self.shift[start],
            shift_z=self.shift[stop] - self.shift[start],
            sum_x=self._sum[start],
            sum_z=self._sum[stop] - self._sum[start],
            xx=xx,
            xz=xy - xx,
            zz=(yy.trace() - 2 * xy.trace() + xx.trace()).clamp(min=0),
            eps=EPS32,
        )
