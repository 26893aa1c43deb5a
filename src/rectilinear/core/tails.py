"""Per-token magnitudes as a mergeable histogram: quantiles, worst tokens' share, tail index, without keeping a token."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

BINS_PER_OCTAVE = 32
LOWEST, HIGHEST = -40, 40  # powers of two; what lies outside counts in the end bins
BINS = (HIGHEST - LOWEST) * BINS_PER_OCTAVE + 1  # bin 0 holds zeros


def _zeros() -> Tensor:
    return torch.zeros(BINS, dtype=torch.float64)


@dataclass
class LogHistogram:
    """Counts and sums of squares of non-negative values in logarithmic bins 2.2 % wide.

    Bin 0 holds zeros (and what is below 2^-40); bin k > 0 holds [2^(-40 + (k-1)/32), 2^(-40 + k/32)). Quantiles are
    within one bin's width; shares of squares are exact but for the bin that the cut falls in. Empty: every figure None.
    """

    counts: Tensor = field(default_factory=_zeros)
    squares: Tensor = field(default_factory=_zeros)
    largest: float = 0.0

    def update(self, values: Tensor) -> None:
        """Add values [n], finite and not negative."""
        if not len(values):
            return
        values = values.double().cpu()
        index = ((values.clamp(min=2.0**LOWEST / 2).log2() - LOWEST) * BINS_PER_OCTAVE).floor().long() + 1
        index.clamp_(0, BINS - 1)
        self.counts += torch.bincount(index, minlength=BINS)
        self.squares += torch.bincount(index, weights=values.square(), minlength=BINS)
        self.largest = max(self.largest, float(values.max()))

    def merge(self, other: LogHistogram) -> LogHistogram:
        """Return the histogram of both sets of values."""
        largest = max(self.largest, other.largest)
        return LogHistogram(self.counts + other.counts, self.squares + other.squares, largest)

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def max(self) -> float | None:
        """The largest value, exactly."""
        return self.largest if self.count else None

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile, interpolated inside its bin."""
        total = self.count
        if not total:
            return None
        rank = q * total
        below = self.counts.cumsum(0)
        index = int(torch.searchsorted(below, torch.tensor(rank, dtype=torch.float64)))
        index = min(index, BINS - 1)
        if index == 0:
            return 0.0
        inside = (rank - float(below[index] - self.counts[index])) / max(float(self.counts[index]), 1.0)
        return min(2.0 ** (LOWEST + (index - 1 + inside) / BINS_PER_OCTAVE), self.largest)

    def share_of_worst(self, fraction: float) -> float | None:
        """Return the share of the total square carried by the largest `fraction` of the values (rounded up)."""
        total = float(self.squares.sum())
        if not self.count or total <= 0:
            return None
        counts, squares, k = self._worst(fraction)
        taken = (k - (counts.cumsum(0) - counts)).clamp(min=0).minimum(counts)
        return float((squares * taken / counts.clamp(min=1)).sum()) / total

    def tail_index(self, fraction: float = 0.05) -> float | None:
        """Return Hill's estimate (1975) of the tail exponent on the largest `fraction`; smaller is heavier.

        A bin's values are taken at their root mean square, an error below 1.1 % each. None below 10 values in the tail.
        """
        counts, squares, k = self._worst(fraction)
        if k < 10:
            return None
        taken = (k - (counts.cumsum(0) - counts)).clamp(min=0).minimum(counts)
        held = (taken > 0) & (squares > 0)
        logs = 0.5 * (squares[held] / counts[held]).log()
        if not len(logs):
            return None
        spread = float((taken[held] * (logs - logs[-1])).sum())
        return k / spread if spread > 0 else None

    def histogram(self, bins_per_octave: int = 4) -> tuple[np.ndarray, np.ndarray]:
        """Return counts [b] and edges [b + 1] of a coarser histogram over the whole range, zeros left out."""
        step = BINS_PER_OCTAVE // bins_per_octave
        counts = self.counts[1:].reshape(-1, step).sum(1).numpy()
        edges = 2.0 ** (LOWEST + np.arange(len(counts) + 1) / bins_per_octave)
        return counts, edges

    def _worst(self, fraction: float) -> tuple[Tensor, Tensor, int]:
        return self.counts.flip(0), self.squares.flip(0), math.ceil(fraction * self.count)
