"""From values to pixels, and the round values worth a label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` onto pixels from `start` to `stop`; logarithmic with `log` (then low > 0)."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return the pixels [n] of values [n]; NaN stays, and so becomes what a logarithm cannot show."""
        low, high = self.low, self.high
        values = np.asarray(values, dtype=float)
        if self.log:
            values = np.log10(values, out=np.full(len(values), np.nan), where=values > 0)
            low, high = math.log10(low), math.log10(high)
        return self.start + (values - low) / (high - low) * (self.stop - self.start)

    def ticks(self, most: int, *, whole: bool = False) -> list[tuple[float, str]]:
        """Return (pixel, label) of up to about `most` round values; `whole` ones only where asked."""
        labels = self._decades(most, whole) if self.log else self._steps(most, whole)
        return list(zip(self(np.array([value for value, _ in labels])).tolist(), [t for _, t in labels], strict=True))

    def _steps(self, most: int, whole: bool) -> list[tuple[float, str]]:
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
        if whole:
            step = max(step, 1.0)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(k * step, f"{k * step:,.{digits}f}".replace("-", "−")) for k in range(first, last + 1)]

    def _decades(self, most: int, whole: bool) -> list[tuple[float, str]]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 5), ((1,), 20)):
            values = [m * 10.0**e for e in decades if e % every == 0 for m in steps]
            shown = [
                v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9) and (v >= 1 or not whole)
            ]
            if len(shown) <= most:
                break
        if len(shown) < 3 and self.high < 10 * self.low:  # within a decade equal steps tell more
            return self._steps(most, whole)
        return [(v, f"{v:,.0f}" if 1 <= v < 1e6 else f"{v:g}") for v in shown]


def around(values: list[np.ndarray], *, log: bool = False) -> tuple[float, float]:
    """Return limits that hold all finite `values` (positive ones, with `log`) and a margin; 0 and 1 where none are."""
    every = np.concatenate([np.asarray(part, dtype=float) for part in values])
    known = every[np.isfinite(every) & ((every > 0) | (not log))]
    if not len(known):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    if log:
        factor = max((high / low) ** 0.06, 1.1)
        return low / factor, high * factor
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.1
    return low - margin, high + margin
