"""From sums over windows to scores with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rectilinear.core.bootstrap import mean_interval
from rectilinear.data.windows import Window
from rectilinear.ops.predict import Sums
from rectilinear.ops.protocol import Cut
from rectilinear.results import Divergence, Lambada, TextScore

MAX_BLOCKS = 1000  # more windows or documents than this are resampled in groups of neighbours


def score_of(sums: Sums, cut: Cut, seed: int) -> TextScore:
    """Return how well the text was predicted, without a ratio."""
    nats, tokens, size = float(sums.nats.sum()), cut.protocol.tokens, cut.protocol.bytes
    low, high = _interval(sums.nats, cut, seed)
    return TextScore(
        protocol=cut.protocol,
        nats=nats,
        perplexity=exp(nats / tokens),
        perplexity_low=None if low is None else exp(low),
        perplexity_high=None if high is None else exp(high),
        bits_per_byte=nats / math.log(2) / size if size else None,
        accuracy=float(sums.hits.sum()) / tokens,
    )


def with_ratio(score: TextScore, sums: Sums, baseline: Sums, cut: Cut, seed: int) -> TextScore:
    """Return the score with its perplexity over the baseline's; both sums are of the same windows, in pairs."""
    gaps = sums.nats - baseline.nats
    low, high = _interval(gaps, cut, seed)
    return replace(
        score,
        ratio=exp(float(gaps.sum()) / cut.protocol.tokens),
        ratio_low=None if low is None else exp(low),
        ratio_high=None if high is None else exp(high),
    )


def divergence_of(sums: Sums, cut: Cut, seed: int) -> Divergence:
    """Return the mean divergence from the reference and the agreement with it."""
    tokens = cut.protocol.tokens
    return Divergence(
        float(sums.divergence.sum()) / tokens,
        *_interval(sums.divergence, cut, seed),
        float(sums.agree.sum()) / tokens,
        *_interval(sums.agree, cut, seed),
    )


def lambada_of(sums: Sums, windows: Sequence[Window], seed: int) -> Lambada:
    """Return accuracy and perplexity per word of passages, one a window."""
    correct = (sums.hits == _predicted(windows)).double()
    units = torch.arange(len(windows))
    low, high = mean_interval(_blocks(correct, units), _blocks(torch.ones_like(correct), units), seed=seed)
    return Lambada(len(windows), float(correct.mean()), low, high, exp(float(sums.nats.mean())))


def exp(value: float) -> float:
    """Return e to the value, infinity where no float holds it: a model cut too far may well be that wrong."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _interval(values: Tensor, cut: Cut, seed: int) -> tuple[float | None, float | None]:
    """Return the 95 % interval of summed values [windows] over predicted tokens, by windows or whole documents."""
    documents = cut.protocol.documents is not None
    units = torch.tensor([w.document if documents else i for i, w in enumerate(cut.windows)])
    return mean_interval(_blocks(values, units), _blocks(_predicted(cut.windows), units), seed=seed)


def _predicted(windows: Sequence[Window]) -> Tensor:
    return torch.tensor([window.predicted for window in windows], dtype=torch.float64)


def _blocks(values: Tensor, units: Tensor) -> Tensor:
    """Return sums [blocks] of values [n] over units [n], neighbouring units together where there are too many."""
    unit = torch.unique_consecutive(units, return_inverse=True)[1]
    count = int(unit.max()) + 1
    block = unit * MAX_BLOCKS // max(count, MAX_BLOCKS)
    return torch.zeros(min(count, MAX_BLOCKS), dtype=torch.float64).index_add_(0, block, values)
