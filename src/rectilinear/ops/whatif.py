"""What if layers were not there, or linear: what a model makes of a prompt, with stand-ins for some of its layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rectilinear.core.linear import AffineMap
from rectilinear.core.prediction import predictions
from rectilinear.data.tokens import encode
from rectilinear.errors import ModelError, TextError
from rectilinear.models.logits import check_causal, greedy_step, next_token_logits
from rectilinear.models.mode import eval_mode
from rectilinear.models.stack import context_limit, decoder_stack
from rectilinear.models.surgery import standing_in
from rectilinear.ops.carriers import token_text
from rectilinear.ops.maps import Maps
from rectilinear.ops.scores import exp

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEW_TOKENS = 24


@dataclass(frozen=True)
class Reading:
    """What a model makes of a prompt: its tokens as text [n], the nats of each but the first [n - 1], what it adds."""

    tokens: tuple[str, ...]
    nats: tuple[float, ...]
    completion: str

    @property
    def perplexity(self) -> float | None:
        """The exponential of the mean nats of the predicted tokens; None for a single token, which nothing predicts."""
        return exp(sum(self.nats) / len(self.nats)) if self.nats else None


def read(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    maps: Maps | None = None,
    removed: Collection[int] = (),
    linear: Collection[int] = (),
    new_tokens: int = NEW_TOKENS,
    layers_path: str | None = None,
    known: str | None = None,
) -> Reading:
    """Return what `model` makes of `prompt`, and its greedy completion of up to `new_tokens` tokens.

    The layers `removed` are passed over and those in `linear` add what their map of all tokens (`maps.every`) does;
    on leaving the model is as it was. Of a prompt that leaves no room in the model's context its end is read.
    `known`: as for `ops.tokens.tokens`.

    Raises TextError for an empty prompt or linear layers without maps, ModelError for layers that are not there or
    named twice and for a model that predicts no next token, ResultError for maps of another model or tokenizer.
    """
    if linear and maps is None:
        raise TextError("expected maps for linear layers, got none")
    check_causal(model)
    stack = decoder_stack(model, layers_path)
    ids = encode(tokenizer, prompt).ids
    if not len(ids) or not prompt.strip():
        raise TextError("expected a prompt, got an empty one")
    limit = context_limit(model)
    ids = ids if limit is None else ids[-max(limit - new_tokens, 1) :]
    both = sorted(set(removed) & set(linear))
    if both:
        raise ModelError(f"expected each layer removed or linear, got {', '.join(map(str, both))} as both")
    stand_ins: dict[int, AffineMap | None] = dict.fromkeys(removed)
    if maps is not None:
        maps.check(model, tokenizer, known)
        every = dict(enumerate(maps.every))
        stand_ins |= {layer: every.get(layer) for layer in linear}
    with torch.inference_mode(), eval_mode(model), standing_in(model, stack, stand_ins):
        rows = torch.from_numpy(ids).long()[None].to(model.device)
        nats = _nats(model, rows)
        added = _completion(model, tokenizer, rows, new_tokens)
    before, after = (str(tokenizer.decode(part)) for part in (ids.tolist(), [*ids.tolist(), *added]))
    completion = after[len(before) :] if after.startswith(before) else str(tokenizer.decode(added))
    return Reading(tuple(token_text(tokenizer, token) for token in ids.tolist()), nats, completion)


def _nats(model: PreTrainedModel, ids: Tensor) -> tuple[float, ...]:
    """Return the nats of each token of ids [1, n] but the first, given those before it."""
    if ids.shape[1] == 1:
        return ()
    logits = next_token_logits(model, ids, None, 0)[0, :-1]
    nats, _ = predictions(logits, torch.arange(len(logits), device=logits.device), ids[0, 1:].to(logits.device))
    return tuple(nats.tolist())


def _completion(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Tensor, new_tokens: int) -> list[int]:
    """Return up to `new_tokens` tokens, the most likely each time, up to the end of text."""
    added: list[int] = []
    token, cache = ids, None
    while len(added) < new_tokens:
        token, cache = greedy_step(model, token, cache)
        if int(token) == tokenizer.eos_token_id:
            break
        added.append(int(token))
    return added
