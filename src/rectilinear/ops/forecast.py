"""What a scan would read and hold in memory, known before any weight is read."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from rectilinear.core.grams import Grams
from rectilinear.core.moments import Moments
from rectilinear.core.spans import chosen_layers
from rectilinear.errors import TextError
from rectilinear.models.stack import context_limit, decoder_stack, width
from rectilinear.ops.pairs import SETS, widest
from rectilinear.ops.passes import usual_batch
from rectilinear.ops.spill import check_place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUBMODULES = 2  # attention and MLP: two pairs more a layer
TIMED = 4096  # rows of the product that is timed


@dataclass(frozen=True)
class Forecast:
    """The size of a scan. layers, of them measured; width: d of the stream; tokens: asked for, None where all are read.

    tokens_per_d: tokens over width, of all tokens ("paper") and of those that the maps are fitted on ("heldout").
    window: the longest context, as it will be. batches: forward passes, if every document fills its windows; None where
    all tokens are read. weights_bytes: of the model in its precision `dtype`; quantised, of its files. moments_bytes:
    of what the scan keeps in any case; moments_bytes_most: with sink tokens in every layer. kept_bytes,
    kept_bytes_most: the same of the files that are kept on disk, 0 where none are. spilled_bytes, spilled_bytes_most:
    of the moments, what lies in files because memory is bounded. pairs_bytes: of the products of all positions, if
    spans are measured.
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
    spilled_bytes: int = 0
    spilled_bytes_most: int = 0
    measured: int = 0
    pairs_bytes: int = 0


def forecast(
    model: PreTrainedModel,
    *,
    tokens: int | Literal["all"] | None = None,
    window: int = 512,
    holdout: float = 0.25,
    submodules: bool = False,
    batch_tokens: int | None = None,
    layers_path: str | None = None,
    layers: str | Iterable[int] | None = None,
    pairs: bool = False,
    pairs_memory: float = 4.0,
    keep_moments: bool = False,
    moments_memory: float | None = None,
    device: str = "cpu",
) -> Forecast:
    """Return what `scan` with these options would take; `model` may be on the meta device (`models.load.skeleton`).

    device: the kind that it would run on. moments_memory: GiB of moments that stay in memory, None for all.

    Raises what `scan` would: ModelError where the decoder stack is not found, TextError for a bad option.
    """
    check_holdout(holdout)
    count, d = len(decoder_stack(model, layers_path)), width(model)
    measured = chosen_layers(layers, count)
    budget, longest = budget_of(model, tokens), context(model, window)
    fitted = len(measured) * (1 + SUBMODULES * submodules)
    group = _nbytes(Moments.empty(d, d, "meta"))
    linear_map = 4 * d * (d + 1) if holdout else 0  # float32, as a pair keeps it while it judges
    # Of a layer whose outputs are no measured layer's inputs, as the last one's.
    outputs = sum(i + 1 not in measured for i in measured) * _nbytes(Moments.empty(d, 0, "meta"))
    kept = fitted * (group + linear_map)
    room = math.inf
    if moments_memory is not None:
        check_place(device)
        room = moments_memory * 2**30
    spilled, spilled_most = (int(max(many * fitted * group + outputs - room, 0)) for many in (1, 2))
    # Of x^T x the lower triangle; apart for the tokens that fit and those that judge.
    on_disk = keep_moments * count * (2 if holdout else 1) * (group - 4 * d * (d - 1))
    batches = per_d = None
    if budget is not None:
        fit = round(budget * (1 - holdout))
        batch_tokens = batch_tokens or usual_batch(device)
        batches = sum(_batches(part, longest, batch_tokens) for part in (fit, budget - fit))
        per_d = {"paper": round(budget / d, 3), "heldout": round(fit / d, 3)}
    stored, kind = getattr(model, "stored_bytes", None), str(model.dtype).removeprefix("torch.")
    return Forecast(
        layers=count,
        width=d,
        dtype=f"quantised {kind}" if stored else kind,
        tokens=budget,
        tokens_per_d=per_d,
        window=longest,
        batches=batches,
        weights_bytes=stored or sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        moments_bytes=kept + outputs,
        moments_bytes_most=2 * kept + outputs,
        kept_bytes=on_disk,
        kept_bytes_most=2 * on_disk,
        spilled_bytes=spilled,
        spilled_bytes_most=spilled_most,
        measured=len(measured),
        pairs_bytes=SETS * Grams.blocks(count + 1, widest(count, d, pairs_memory)) * 8 * d * d if pairs else 0,
    )


def least_seconds(
    model: PreTrainedModel,
    tokens: int,
    device: str,
    layers_path: str | None = None,
    layers: str | Iterable[int] | None = None,
) -> float:
    """Return how long a scan of so many tokens takes at the least: its matrix products at the speed of one timed now.

    Counted are the layers' weights, two operations a token each, and three products of width d for the moments; reading
    weights, attention over the context, fits and the report come on top. `model` may be on the meta device.
    """
    stack, d = decoder_stack(model, layers_path), width(model)
    measured = chosen_layers(layers, len(stack))
    weights = sum(weight.numel() for layer in stack[: measured[-1] + 1] for weight in layer.parameters())
    rows, matrix = (torch.ones(n, d, dtype=model.dtype, device=device) for n in (TIMED, d))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        float((rows @ matrix)[0, 0])  # a GPU has to be waited for
        times.append(time.perf_counter() - started)
    return tokens * (2 * weights + 3 * len(measured) * d * d) / (2 * TIMED * d * d) * min(times)


def bytes_by_device(
    model: PreTrainedModel, told: Forecast, device: str, layers_path: str | None = None
) -> dict[str, dict[str, int]]:
    """Return the bytes of weights and of moments that each device would hold, those of the sinks included.

    A layer's moments are where the layer is. For "balanced" the layers are dealt out as `load` would, from the memory
    that the devices have free now. `model` may be on the meta device.
    """
    if device != "balanced":
        moments = told.moments_bytes_most - told.spilled_bytes_most + told.pairs_bytes
        return {device: {"weights": told.weights_bytes, "moments": moments}}
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory

    alone = getattr(model, "_no_split_modules", None)
    alone = None if alone is None else sorted(alone)
    memory = get_balanced_memory(model, dtype=model.dtype, no_split_module_classes=alone)
    places = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=alone, dtype=model.dtype)
    stack = decoder_stack(model, layers_path)
    name = next(name for name, module in model.named_modules() if module is stack)
    found: dict[str, dict[str, int]] = {}
    for weight, values in model.named_parameters():
        held = found.setdefault(_place(weight, places), {"weights": 0, "moments": 0})
        held["weights"] += values.numel() * values.element_size()
    for layer in range(told.layers):
        found[_place(f"{name}.{layer}", places)]["moments"] += told.moments_bytes_most // told.layers
    found[_place(f"{name}.0", places)]["moments"] += told.pairs_bytes
    return found


def _place(name: str, places: dict[str, Any]) -> str:
    """Return the device of a module or weight, by that of the longest name that it is in."""
    within = max((key for key in places if not key or name == key or name.startswith(f"{key}.")), key=len)
    place = places[within]
    return f"cuda:{place}" if isinstance(place, int) else str(place)


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
