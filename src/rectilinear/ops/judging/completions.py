"""Completions of prompts, by sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from rectilinear.errors import TextError
from rectilinear.models.mode import eval_mode
from rectilinear.models.stack import context_limit
from rectilinear.results.judging import Completion

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    samples: int,
    tokens: int,
    temperature: float,
    seed: int,
    start: int = 0,
) -> Iterator[Completion]:
    """Yield `samples` completions of each prompt, of up to `tokens` tokens; each pair has a seed of its own.

    Begins with prompt number `start`. A temperature of 0 takes the likeliest token. Raises TextError for a prompt that
    leaves no room in the context.
    """
    limit = context_limit(model)
    for number, beginning in list(enumerate(prompts))[start:]:
        encoded = tokenizer(beginning, return_tensors="pt").to(model.device)
        length = encoded["input_ids"].shape[1]
        room = tokens if limit is None else min(tokens, limit - length)
        if room < 1 or not length:
            raise TextError(
                f"expected prompts of 1 to {(limit or tokens) - 1} tokens, got {length} in prompt {number + 1}"
            )
        for sample in range(samples):
            torch.manual_seed(seed + number * samples + sample)
            # Not around `yield`: who is given a completion and goes no further would be left without gradients.
            with torch.inference_mode(), eval_mode(model):
                made: Any = model.generate(  # type: ignore[operator]
                    **{name: encoded[name] for name in ("input_ids", "attention_mask")},
                    max_new_tokens=room,
                    do_sample=temperature > 0,
                    temperature=temperature if temperature > 0 else None,
                    top_k=0 if temperature > 0 else None,
                    top_p=None,
                    pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
                )
            text = tokenizer.decode(made[0, length:], skip_special_tokens=True)
            yield Completion(number, sample, beginning, str(text))
