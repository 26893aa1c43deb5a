"""Speed and memory of models, timed in turn so that a drift of the machine hits all alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rectilinear.models.logits import greedy_step
from rectilinear.models.mode import eval_mode
from rectilinear.results import Speed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT, NEW_TOKENS, REPEATS = 256, 32, 5


@dataclass
class _Timing:
    prefill: list[float] = field(default_factory=list)
    generate: list[float] = field(default_factory=list)
    cache_bytes: int = 0
    peak: int = 0


def measure_speed(
    models: Sequence[PreTrainedModel],
    prompts: Sequence[Tensor],
    *,
    new_tokens: int = NEW_TOKENS,
    repeats: int = REPEATS,
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Speed]:
    """Return the speed of each model on its prompt [1, n] int64; a first round warms up and does not count.

    Generation is greedy, with a cache, one token a step; reading the prompt is timed apart.
    """
    timings = [_Timing() for _ in models]
    with torch.inference_mode(), eval_mode(*models):
        for repeat in range(repeats + 1):
            for model, prompt, timing in zip(models, prompts, timings, strict=True):
                _round(model, prompt.to(model.device), new_tokens, timing)
                if repeat == 0:
                    timing.prefill.clear()
                    timing.generate.clear()
                advance(prompt.shape[1] + new_tokens)
    process = process_peak()
    return [
        Speed(
            prefill=prompt.shape[1] / statistics.median(timing.prefill),
            generate=new_tokens / statistics.median(timing.generate),
            prompt=prompt.shape[1],
            new_tokens=new_tokens,
            repeats=repeats,
            cache_bytes_per_token=timing.cache_bytes / prompt.shape[1] if timing.cache_bytes else None,
            peak_bytes=timing.peak if model.device.type == "cuda" else process,
            peak_scope="model" if model.device.type == "cuda" else "process",
        )
        for model, prompt, timing in zip(models, prompts, timings, strict=True)
    ]


def process_peak() -> int | None:
    """Return the most memory the process ever held, in bytes; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB


def model_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of the parameters, tied ones counted once."""
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def cache_bytes(cache: Any) -> int:
    """Return the bytes of all tensors that a cache object holds, whatever its class."""
    return sum({t.untyped_storage().data_ptr(): t.numel() * t.element_size() for t in _tensors(cache)}.values())


def _round(model: PreTrainedModel, prompt: Tensor, new_tokens: int, timing: _Timing) -> None:
    cuda = model.device.type == "cuda"
    others = 0
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
        others = torch.cuda.memory_allocated(model.device) - model_bytes(model)
    started = now(model)
    token, cache = greedy_step(model, prompt)
    timing.prefill.append(now(model) - started)
    timing.cache_bytes = cache_bytes(cache)
    started = now(model)
    for _ in range(new_tokens):
        token, cache = greedy_step(model, token, cache)
    timing.generate.append(now(model) - started)
    if cuda:
        timing.peak = max(timing.peak, torch.cuda.max_memory_allocated(model.device) - others)


def now(model: PreTrainedModel) -> float:
    """Return the time in seconds, once the model's device has done what it was told."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    elif model.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value))
