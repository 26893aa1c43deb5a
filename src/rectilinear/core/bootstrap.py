"""Intervals: of ratios of sums by resampling documents, whose tokens are not independent; of a share in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RESAMPLES = 1000
Z = 1.959964  # of 95 %


def ratio_interval(
    errors: Tensor, totals: Tensor, *, scale: float = 1.0, seed: int = 0, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Return the percentile interval of 1 - sum(errors) / (scale * sum(totals)).

    errors, totals: [blocks], sums over each document (or block of documents). scale: turns totals about a fixed centre
    into totals about the sample's own mean. None, None with fewer than two blocks that hold anything.
    """
    filled = totals > 0
    blocks = int(filled.sum())
    if blocks < 2:
        return None, None
    times = draws(blocks, seed)
    e, t = errors[filled].double().cpu(), totals[filled].double().cpu()
    low, high = interval(1 - (times @ e) / (scale * (times @ t)), level)
    return float(low), float(high)


def mean_interval(sums: Tensor, counts: Tensor, *, seed: int = 0) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval of sum(sums) / sum(counts), both [blocks]; None, None as above."""
    low, high = ratio_interval(sums, counts, seed=seed)
    return (None, None) if low is None or high is None else (1 - high, 1 - low)


def mean_score_interval(
    errors: Tensor, totals: Tensor, scales: Tensor, *, seed: int = 0
) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval of the mean over layers of 1 - sum(errors) / (scale * sum(totals)).

    errors, totals: [layers, blocks], sums over each block; scales: [layers], as in `ratio_interval`. The blocks are
    drawn once for all layers, which saw the same tokens. None, None with fewer than two blocks that hold anything.
    """
    filled = (totals > 0).any(0)
    blocks = int(filled.sum())
    if blocks < 2:
        return None, None
    times = draws(blocks, seed)
    e, t = errors[:, filled].double() @ times.T, totals[:, filled].double() @ times.T
    low, high = interval((1 - e / (scales.double()[:, None] * t)).mean(0)).tolist()
    return low, high


def draws(blocks: int, seed: int) -> Tensor:
    """Return how often each block is drawn in each resample, [resamples, blocks] float64; every row sums to `blocks`.

    What is summed over blocks with the same draws is resampled together, which is how differences are judged in pairs.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(blocks, (RESAMPLES, blocks), generator=generator)
    return torch.zeros(RESAMPLES, blocks, dtype=torch.float64).scatter_add_(
        1, drawn, torch.ones((), dtype=torch.float64).expand(RESAMPLES, blocks)
    )


def interval(values: Tensor, level: float = 0.95) -> Tensor:
    """Return the percentile interval [2, ...] of resampled values [resamples, ...]; NaN where one of them is."""
    edges = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    return torch.quantile(values, edges, dim=0)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of `count` independent trials; no hits or all of them are no certainty.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    share, square = hits / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    reach = Z * math.sqrt((share * (1 - share) + square / 4) / count) / (1 + square)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
