"""Intervals for ratios of sums, by resampling whole documents: tokens of one document are not independent."""

from __future__ import annotations

import torch
from torch import Tensor

RESAMPLES = 1000


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
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(blocks, (RESAMPLES, blocks), generator=generator)
    e, t = errors[filled].double().cpu()[draws].sum(1), totals[filled].double().cpu()[draws].sum(1)
    values = 1 - e / (scale * t)
    edges = torch.quantile(values, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return float(edges[0]), float(edges[1])


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
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(blocks, (RESAMPLES, blocks), generator=generator)
    counts = torch.zeros(RESAMPLES, blocks, dtype=torch.float64).scatter_add_(1, draws, torch.ones_like(draws).double())
    e, t = errors[:, filled].double() @ counts.T, totals[:, filled].double() @ counts.T
    values = (1 - e / (scales.double()[:, None] * t)).mean(0)
    edges = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(edges[0]), float(edges[1])
