"""Magnitudes of tokens as a mergeable histogram: quantiles, worst tokens' share, tail index; no token is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from rectilinear.errors import NonFiniteError, ResultError

BINS_PER_OCTAVE = 32
LOWEST, HIGHEST = -40, 40  # powers of two; what lies outside counts in the end bins
BINS = (HIGHEST - LOWEST) * BINS_PER_OCTAVE + 1  # bin 0 holds zeros
LEAST_TAIL = 10  # values below which a tail index would be noise


@dataclass
class LogHistogram:
    """Counts and sums of squares of non-negative values in logarithmic bins 2.2 % wide.

    Bin 0 holds zeros; bin k > 0 holds [2^(-40 + (k-1)/32), 2^(-40 + k/32)), the end bins also what lies beyond them.
    Count, sum of squares and max are exact to float64 rounding. Empty: every figure is None.

    Attributes: counts [b] int64; squares [b] float64, sum of squares in each bin; smallest and largest value.
    """

    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    squares: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    smallest: float = math.inf
    largest: float = 0.0

    def update(self, values: Tensor) -> None:
        """Add values [n] of any float type, on any device.

        Raises NonFiniteError for NaN or infinity and ValueError for a negative value; nothing is added then.
        """
        if not len(values):
            return
        values = values.detach().cpu().double()  # moved first: not every accelerator has float64
        smallest, largest = (float(v) for v in values.aminmax())
        if not math.isfinite(largest - smallest):
            raise NonFiniteError("expected finite magnitudes, got NaN or infinity; load the model in a wider dtype")
        if smallest < 0:
            raise ValueError(f"expected magnitudes of at least 0, got {smallest}")
        index = (((values.clamp(min=2.0**LOWEST).log2() - LOWEST) * BINS_PER_OCTAVE).long() + 1).clamp_(max=BINS - 1)
        index *= values > 0
        self.counts += torch.bincount(index, minlength=BINS)
        self.squares += torch.bincount(index, weights=values.square(), minlength=BINS)
        self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)

    def merge(self, other: LogHistogram) -> LogHistogram:
        """Return the histogram of both sets of values."""
        return LogHistogram(
            self.counts + other.counts,
            self.squares + other.squares,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
        )

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def sum_of_squares(self) -> float:
        """Sum of the squared values."""
        return float(self.squares.sum())

    @property
    def max(self) -> float | None:
        """The largest value."""
        return self.largest if self.count else None

    def quantile(self, q: float) -> float | None:
        """Return the smallest value with at least a share `q` of all at or below it, within 2.2 %.

        Logarithmic interpolation inside the bin; exact at 0, at 1 and for zeros. The bound holds from 2^-40 to 2^40.
        Raises ValueError for q outside 0..1.
        """
        rank = max(self._rank(q), 1)
        n = self.count
        if not n:
            return None
        if rank in (1, n):
            return self.smallest if rank == 1 else self.largest
        reached = self.counts.cumsum(0)
        index = int(torch.searchsorted(reached, rank))
        if index == 0:
            return 0.0
        held = int(self.counts[index])
        inside = (rank - 0.5 - (int(reached[index]) - held)) / held
        value = 2.0 ** (LOWEST + (index - 1 + inside) / BINS_PER_OCTAVE)
        return min(max(value, self.smallest), self.largest)

    def share_of_worst(self, fraction: float) -> float | None:
        """Return the share of the total square carried by the largest `fraction` of the values (rounded up).

        Exact but for the bin that the cut falls in, whose values count as alike: an error below 4.5 % of that bin's
        share. None where all values are zero. Raises ValueError for a fraction outside 0..1.
        """
        taken = self._worst(self._rank(fraction))
        total = self.sum_of_squares
        return float((self.squares * taken / self.counts.clamp(min=1)).sum()) / total if total > 0 else None

    def tail_index(self, fraction: float = 0.05) -> float | None:
        """Return Hill's estimate (1975) of the tail exponent on the largest `fraction`; smaller is heavier.

        A bin's values are taken at their root mean square; in the bin that the cut falls in they are taken as evenly
        spread in the logarithm. None where the tail has fewer than 10 values, reaches down to zeros, or lies in one
        bin. Raises ValueError for a fraction outside 0..1.
        """
        k = self._rank(fraction)
        taken = self._worst(k)
        bins = taken.nonzero().flatten()
        if k < LEAST_TAIL or len(bins) < 2 or bins[0] == 0:
            return None
        cut, above = bins[0], bins[1:]
        # Rounding the threshold to its bin would cost a thin tail (exponent 10 and more) a tenth of its estimate.
        depth = float(taken[cut] / self.counts[cut]) * math.log(2) / BINS_PER_OCTAVE
        upper = (LOWEST + float(cut) / BINS_PER_OCTAVE) * math.log(2)
        logs = 0.5 * (self.squares[above] / self.counts[above]).log()
        spread = float((taken[above] * (logs - (upper - depth))).sum()) + float(taken[cut]) * depth / 2
        return k / spread

    def histogram(self, bins_per_octave: int = 4) -> tuple[np.ndarray, np.ndarray]:
        """Return counts [b] and edges [b + 1] of a coarser histogram over the whole range, zeros left out.

        Raises ValueError where `bins_per_octave` does not divide 32.
        """
        step, rest = divmod(BINS_PER_OCTAVE, bins_per_octave)
        if rest:
            raise ValueError(f"expected a divisor of {BINS_PER_OCTAVE} bins per octave, got {bins_per_octave}")
        counts = self.counts[1:].reshape(-1, step).sum(1).numpy()
        return counts, 2.0 ** (LOWEST + np.arange(len(counts) + 1) / bins_per_octave)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the state as named tensors, ready for safetensors."""
        figures = torch.tensor([self.smallest, self.largest], dtype=torch.float64)
        return {"counts": self.counts.clone(), "squares": self.squares.clone(), "figures": figures}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> LogHistogram:
        """Rebuild from `to_tensors`; raises ResultError where a part is missing or of another size."""
        try:
            counts, squares = tensors["counts"], tensors["squares"]
            smallest, largest = tensors["figures"].flatten().tolist()
        except (KeyError, ValueError, TypeError) as error:
            raise ResultError(f"expected a saved histogram, got one without {error}; scan again") from error
        if not counts.shape == squares.shape == (BINS,):
            raise ResultError(f"expected a saved histogram of {BINS} bins, got {counts.numel()}; scan again")
        return cls(counts.clone(), squares.clone(), smallest, largest)

    def _rank(self, fraction: float) -> int:
        if not 0 <= fraction <= 1:
            raise ValueError(f"expected a fraction from 0 to 1, got {fraction}")
        # 0.07 * 100 is 7.000000000000001, which is meant as 7.
        return math.ceil(round(fraction * self.count, 6))

    def _worst(self, k: int) -> Tensor:
        """Return how many of the k largest values each bin [b] holds."""
        above = self.count - self.counts.cumsum(0)
        return (k - above).clamp(min=0).minimum(self.counts)
