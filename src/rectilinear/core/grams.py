"""Cross products of the positions of a stream: all that the linear map from any position to any later one needs.

What `Moments` is for one pair of positions this is for all of them: the products of one position with itself are shared
by every pair that starts or ends there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rectilinear.core.moments import EPS32, Moments, full_precision


class Grams:
    """Sums and products of rows at positions 0 to `positions` - 1, for pairs at most `width` apart; they stream.

    Rows are shifted by the mean of the first batch; products are float32 in a batch and float64 in the sum. Memory is
    8 d^2 bytes a block, `blocks(positions, width)` of them.
    """

    def __init__(self, positions: int, d: int, *, width: int, device: torch.device | str = "cpu") -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.n = 0
        self.positions, self.width = positions, width
        self._shift, self._sum = zeros(positions, d), zeros(positions, d)
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
        if self.n == 0:
            self._shift = torch.stack([x.mean(0).float().double() for x in rows])
        shifted = [x.float() - shift.float() for x, shift in zip(rows, self._shift, strict=True)]
        with full_precision():
            for (i, j), total in self._products.items():
                total += shifted[i].T @ shifted[j]
        self._sum += torch.stack([x.sum(0) for x in shifted])
        self.n += len(rows[0])

    def moments(self, start: int, stop: int) -> Moments:
        """Return the moments of x at `start` and z = y - x with y at `stop`; raises KeyError beyond the width."""
        xx, xy, yy = (self._products[pair] for pair in ((start, start), (start, stop), (stop, stop)))
        return Moments(
            n=self.n,
            shift_x=self._shift[start],
            shift_z=self._shift[stop] - self._shift[start],
            sum_x=self._sum[start],
            sum_z=self._sum[stop] - self._sum[start],
            xx=xx,
            xz=xy - xx,
            zz=(yy.trace() - 2 * xy.trace() + xx.trace()).clamp(min=0),
            eps=EPS32,
        )
