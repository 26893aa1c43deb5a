"""What a scan would read and hold in memory, known before any weight is read."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from rectilinear.core.moments import Moments
from rectilinear.errors import TextError
from rectilinear.models.stack import context_limit, decoder_stack, width

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUBMODULES = 2  # attention and MLP: two pairs more a layer
TIMED = 4096  # rows of the product that is timed


@dataclass(frozen=True)
class Forecast:
    """The size of a scan. layers; width: d of the stream; tokens: asked for, None where all are read.

    tokens_per_d: tokens over width, of all tokens ("paper") and of those that the maps are fitted on ("heldout").
    window: the longest context, as it will be. batches: forward passes, if every document fills its windows; None
    where all tokens are read. weights_bytes: of the model in its precision `dtype`. moments_bytes: of what the scan
    keeps in any case; moments_bytes_most: with sink tokens in every layer. kept_bytes, kept_bytes_most: the same of the
    files that are kept on disk, 0 where none are.
    """

    layers: int
    width: int
    dtype: str
    tokens: int | None
    tokens_per_d: dict[str, float] | None
    window: int
    batches: int | None
    weights_bytes: int
    moments_bytes: int
    moments_bytes_most: int
    kept_bytes: int = 0
    kept_bytes_most: int = 0


def forecast(
    model: PreTrainedModel,
    *,
    tokens: int | Literal["all"] | None = None,
    window: int = 512,
    holdout: float = 0.25,
    submodules: bool = False,
    batch_tokens: int = 4096,
    layers_path: str | None = None,
    keep_moments: bool = False,
) -> Forecast:
    """Return what `scan` with these options would take; `model` may be on the meta device (`models.load.skeleton`).

    Raises what `scan` would: ModelError where the decoder stack is not found, TextError for a bad option.
    """
    check_holdout(holdout)
    layers, d = len(decoder_stack(model, layers_path)), width(model)
    budget, longest = budget_of(model, tokens), context(model, window)
    pairs = layers * (1 + SUBMODULES * submodules)
    group = _nbytes(Moments.empty(d, d, "meta"))
    linear_map = 4 * d * (d + 1) if holdout else 0  # float32, as a pair keeps it while it judges
    outputs = _nbytes(Moments.empty(d, 0, "meta"))  # of the last layer
    kept = pairs * (group + linear_map)
    # Of x^T x the lower triangle; apart for the tokens that fit and those that judge.
    on_disk = keep_moments * layers * (2 if holdout else 1) * (group - 4 * d * (d - 1))
    batches = per_d = None
    if budget is not None:
        fit = round(budget * (1 - holdout))
        batches = sum(_batches(part, longest, batch_tokens) for part in (fit, budget - fit))
        per_d = {"paper": round(budget / d, 3), "heldout": round(fit / d, 3)}
    return Forecast(
        layers=layers,
        width=d,
        dtype=str(model.dtype).removeprefix("torch."),
        tokens=budget,
        tokens_per_d=per_d,
        window=longest,
        batches=batches,
        weights_bytes=sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        moments_bytes=kept + outputs,
        moments_bytes_most=2 * kept + outputs,
        kept_bytes=on_disk,
        kept_bytes_most=2 * on_disk,
    )


def least_seconds(model: PreTrainedModel, tokens: int, device: str, layers_path: str | None = None) -> float:
    """Return how long a scan of so many tokens takes at the least: its matrix products at the speed of one timed now.

    Counted are the layers' weights, two operations a token each, and three products of width d for the moments; reading
    weights, attention over the context, fits and the report come on top. `model` may be on the meta device.
    """
    stack, d = decoder_stack(model, layers_path), width(model)
    weights = sum(weight.numel() for weight in stack.parameters())
    rows, matrix = (torch.ones(n, d, dtype=model.dtype, device=device) for n in (TIMED, d))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        float((rows @ matrix)[0, 0])  # a GPU has to be waited for
        times.append(time.perf_counter() - started)
    return tokens * (2 * weights + 3 * len(stack) * d * d) / (2 * TIMED * d * d) * min(times)


def check_holdout(holdout: float) -> None:
    """Raise TextError for a share of held-out tokens that is none."""
    if not 0 <= holdout < 1:
        raise TextError(f"expected a holdout between 0 and 1, got {holdout}: 0.25 keeps a quarter of the tokens unseen")


def budget_of(model: PreTrainedModel, tokens: int | Literal["all"] | None) -> int | None:
    """Return how many tokens to read: by default 32 a dimension and at least 16,384; None for "all"."""
    if tokens is None:
        return max(16_384, 32 * width(model))
    return None if tokens == "all" else tokens


def context(model: PreTrainedModel, window: int) -> int:
    """Return the window, cut to the model's longest context; raises TextError for one below a token."""
    if window < 1:
        raise TextError(f"expected a window of at least 1 token, got {window}")
    limit = context_limit(model)
    return window if limit is None else min(window, limit)


def _batches(tokens: int, window: int, batch_tokens: int) -> int:
    return math.ceil(math.ceil(tokens / window) / max(batch_tokens // window, 1))


def _nbytes(moments: Moments) -> int:
    return sum(tensor.nbytes for tensor in vars(moments).values() if hasattr(tensor, "nbytes"))
