"""A prompt token by token: how linear each layer is on it, and what the stream would say on its way."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rectilinear.data.tokens import encode
from rectilinear.errors import ModelError, NonFiniteError, TextError
from rectilinear.models.logits import check_causal
from rectilinear.models.mode import eval_mode
from rectilinear.models.runner import Runner
from rectilinear.models.stack import context_limit, decoder_stack, forward, watch
from rectilinear.ops.carriers import token_text
from rectilinear.ops.conclude import TRUSTED_TOKENS_PER_D
from rectilinear.ops.kept import MODEL_FACTS
from rectilinear.ops.lens import Said
from rectilinear.ops.maps import Maps
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.results import Guess, TokenResult, TokensResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    maps: Maps,
    lenses: Collection[int] | None = None,
    layers_path: str | None = None,
    known: str | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TokensResult:
    """Measure every layer of `model` on every token of `prompt`, against maps fitted on other text (`fit_maps`).

    A prompt beyond the model's context is read in windows of it, with a note. `lenses`: the tokens of the prompt, by
    number, whose lenses are wanted, None for all: they are most of the work. `known`: the model's fingerprint, where it
    is, for which all weights are read. `provenance` entries are added to the result's. `on_progress` is told the tokens
    done and their number.

    Raises TextError for an empty prompt, ResultError for maps of another model or tokenizer, ModelError where the model
    predicts no next token or the decoder stack is not found, NonFiniteError for NaN or infinite activations.
    """
    ids = _ids(tokenizer, prompt)
    known = maps.check(model, tokenizer, known)
    check_causal(model)
    stack = decoder_stack(model, layers_path)
    if len(stack) != len(maps.layer):
        raise ModelError(f"expected the {len(maps.layer)} layers that the maps were fitted on, got {len(stack)}")
    limit = context_limit(model) or len(ids)
    runner = Runner(model, stack)
    found: list[TokenResult] = []
    with torch.inference_mode(), eval_mode(model):
        for start in range(0, len(ids), limit):
            window, came = ids[start : start + limit], ids[start + 1 : start + limit + 1]
            trace = _Trace(maps, start)
            with watch(stack, trace.on_layer):
                forward(model, stack, window[None].to(model.device), None)
            chosen = [at for at in range(len(window)) if lenses is None or start + at in lenses]

            def tell(share: float, start: int = start, count: int = len(window)) -> None:
                if on_progress is not None:
                    on_progress(start + int(share * count), len(ids))

            said = Said(runner, trace.stream, maps, came, chosen, tell)
            found += _results(tokenizer, window, trace, said)
    facts = {
        **model_facts(model, known),
        "tokenizer_fingerprint": maps.facts["tokenizer_fingerprint"],
        "prompt_tokens": len(ids),
        "layers": len(stack),
        "d": maps.facts["d"],
        "maps": {k: v for k, v in maps.facts.items() if k not in MODEL_FACTS},
        **run_facts(),
        **(provenance or {}),
    }
    return TokensResult(facts, tuple(found), tuple(_notes(len(ids), limit, maps)))


def _ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """Return the prompt's ids [n]."""
    if not prompt.strip():
        raise TextError("expected a prompt, got an empty one")
    found = encode(tokenizer, prompt).ids
    if not len(found):
        raise TextError("expected a prompt, got one that has no tokens")
    return torch.from_numpy(found).long()


def _notes(count: int, limit: int, maps: Maps) -> Iterator[str]:
    if count > limit:
        yield (
            f"The prompt has {count:,} tokens, more than the model's longest context of {limit:,}: it is read in "
            f"{-(-count // limit)} windows, and the first tokens of each have little before them."
        )
    per_d = maps.facts["tokens"] / maps.facts["d"]
    if per_d < TRUSTED_TOKENS_PER_D:
        yield (
            f"The maps rest on {per_d:.1f} tokens per dimension, below {TRUSTED_TOKENS_PER_D}: errors come out too "
            "high. Give more --tokens."
        )


@dataclass
class _Trace:
    """What is seen while a window goes through the layers: per layer one value a token, [n] float64 each.

    start: the window's first token. stream: the stream [1, n, d] at all positions, as the model has it.
    """

    maps: Maps
    start: int
    stream: list[Tensor] = field(default_factory=list)
    relative_error: list[Tensor] = field(default_factory=list)
    bias_share: list[Tensor] = field(default_factory=list)
    stream_norm: list[Tensor] = field(default_factory=list)
    contribution_norm: list[Tensor] = field(default_factory=list)
    cosine: list[Tensor] = field(default_factory=list)
    sink: list[Tensor] = field(default_factory=list)

    def on_layer(self, index: int, x: Tensor, y: Tensor) -> None:
        """Take in one layer's input x and raw output y, both [1, n, d]."""
        self.stream.append(x)
        if index == len(self.maps.layer) - 1:
            self.stream.append(y)
        before, after = x[0].cpu().double(), y[0].cpu().double()
        added = after - before
        x_norm, y_norm, z_norm = (rows.norm(dim=1) for rows in (before, after, added))
        self._check_finite(index, x_norm)
        self._check_finite(index + 1, y_norm)
        one = self.maps.layer[index]
        # Where a layer adds nothing there is nothing to be wrong about: 0 / 0 is NaN, and None in the result.
        known = torch.where(z_norm > 0, z_norm, torch.nan)
        self.relative_error.append((added - one(before)).norm(dim=1) / known)
        self.bias_share.append(one.bias.double().norm() / known)
        self.stream_norm.append(y_norm)
        self.contribution_norm.append(z_norm)
        self.cosine.append(torch.cosine_similarity(before, after))
        self.sink.append(self._massive(index, x_norm) | self._massive(index + 1, y_norm))

    def _massive(self, position: int, norms: Tensor) -> Tensor:
        limit = self.maps.thresholds[position]
        return norms > limit if limit > 0 else torch.zeros_like(norms, dtype=torch.bool)

    def _check_finite(self, position: int, norms: Tensor) -> None:
        finite = torch.isfinite(norms)
        if not bool(finite.all()):
            where = f"layer {position - 1}" if position else "the embedding"
            raise NonFiniteError(
                f"{where} gave a NaN or infinite activation at token {self.start + int((~finite).nonzero()[0])} of the "
                "prompt: use another --dtype (bfloat16 or float32)"
            )


def _results(tokenizer: PreTrainedTokenizerBase, ids: Tensor, trace: _Trace, said: Said) -> Iterator[TokenResult]:
    names = ("relative_error", "bias_share", "stream_norm", "contribution_norm", "cosine")
    columns = {name: torch.stack(getattr(trace, name), 1) for name in names}
    sinks = torch.stack(trace.sink, 1).tolist()

    def guesses(found: dict[int, tuple[tuple[int, float], ...]], at: int) -> tuple[Guess, ...]:
        way = (*found.get(at, ()), said.end[at])
        return tuple(Guess(token_text(tokenizer, token), probability) for token, probability in way)

    for at, token in enumerate(ids.tolist()):
        more = at < len(said.rank)
        values = {
            name: tuple(None if math.isnan(v) else v for v in column[at].tolist()) for name, column in columns.items()
        }
        yield TokenResult(
            position=trace.start + at,
            id=token,
            token=token_text(tokenizer, token),
            **values,
            sink=tuple(sinks[at]),
            logit_lens=guesses(said.logit, at),
            linear_lens=guesses(said.linear, at),
            next_rank=said.rank[at] if more else None,
            next_probability=said.probability[at] if more else None,
        )
