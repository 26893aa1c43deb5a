"""A prompt token by token: how linear each layer is on it, and what the stream would say on its way."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rectilinear.core.prediction import CHUNK, leading, standing
from rectilinear.data.tokens import encode
from rectilinear.errors import ModelError, NonFiniteError, TextError
from rectilinear.models.logits import check_causal
from rectilinear.models.mode import eval_mode
from rectilinear.models.runner import Runner
from rectilinear.models.stack import context_limit, decoder_stack, forward, watch
from rectilinear.ops.carriers import token_text
from rectilinear.ops.kept import MODEL_FACTS
from rectilinear.ops.maps import Maps
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.scan import TRUSTED_TOKENS_PER_D
from rectilinear.results import Guess, TokenResult, TokensResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    maps: Maps,
    layers_path: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> TokensResult:
    """Measure every layer of `model` on every token of `prompt`, against maps fitted on other text (`fit_maps`).

    A prompt beyond the model's context is cut, with a note. `provenance` entries are added to the result's.

    Raises TextError for an empty prompt, ResultError for maps of another model, ModelError where the model predicts no
    next token or the decoder stack is not found, NonFiniteError for NaN or infinite activations.
    """
    notes: list[str] = []
    ids = _ids(model, tokenizer, prompt, notes)
    maps.check(model, tokenizer)
    check_causal(model)
    stack = decoder_stack(model, layers_path)
    if len(stack) != len(maps.layer):
        raise ModelError(f"expected the {len(maps.layer)} layers that the maps were fitted on, got {len(stack)}")
    trace = _Trace(maps)
    with torch.inference_mode(), eval_mode(model):
        with watch(stack, trace.on_layer):
            forward(model, stack, ids[None].to(model.device), None)
        lens = _Lens(Runner(model, stack), trace.stream, ids, maps)
    per_d = maps.facts["tokens"] / maps.facts["d"]
    if per_d < TRUSTED_TOKENS_PER_D:
        notes.append(
            f"The maps rest on {per_d:.1f} tokens per dimension, below {TRUSTED_TOKENS_PER_D}: errors come out too "
            "high. Give more --tokens."
        )
    facts = {
        **model_facts(model),
        "tokenizer_fingerprint": maps.facts["tokenizer_fingerprint"],
        "prompt_tokens": len(ids),
        "layers": len(stack),
        "d": maps.facts["d"],
        "maps": {k: v for k, v in maps.facts.items() if k not in MODEL_FACTS},
        **run_facts(),
        **(provenance or {}),
    }
    return TokensResult(facts, _results(tokenizer, ids, trace, lens), tuple(notes))


def _ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, notes: list[str]) -> Tensor:
    """Return the prompt's ids [n], cut to the model's context."""
    if not prompt.strip():
        raise TextError("expected a prompt, got an empty one")
    limit = context_limit(model)
    found = encode(tokenizer, prompt, None if limit is None else limit + 1).ids
    if not len(found):
        raise TextError("expected a prompt, got one that has no tokens")
    if limit is not None and len(found) > limit:
        notes.append(f"The prompt is cut to its first {limit:,} tokens, the model's longest context.")
    return torch.from_numpy(found[:limit]).long()


@dataclass
class _Trace:
    """What is seen while the prompt goes through the layers: per layer one value a token, [n] float64 each.

    stream: the stream [1, n, d] at all positions, as the model has it.
    """

    maps: Maps
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
        _check_finite(index, x_norm)
        _check_finite(index + 1, y_norm)
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


def _check_finite(position: int, norms: Tensor) -> None:
    finite = torch.isfinite(norms)
    if not bool(finite.all()):
        where = f"layer {position - 1}" if position else "the embedding"
        raise NonFiniteError(
            f"{where} gave a NaN or infinite activation at token {int((~finite).nonzero()[0])} of the prompt: use "
            "another --dtype (bfloat16 or float32)"
        )


class _Lens:
    """What the head says of the stream at every position, as it is and mapped to the end, one Guess's parts each.

    logit, linear: per position (token [n], probability [n]); rank, probability [n - 1]: of the token that came next.
    """

    def __init__(self, runner: Runner, stream: list[Tensor], ids: Tensor, maps: Maps) -> None:
        self._runner = runner
        vocabulary = int(runner.model.config.get_text_config().vocab_size)
        self._step = max(1, CHUNK // vocabulary)
        last = stream[-1]
        self.logit = [self._guesses(x.to(last.device)) for x in stream]
        self.linear = [
            self._guesses((x[0].cpu().double() + one(x[0].cpu().double())).to(last)[None])
            for x, one in zip(stream, maps.lens, strict=False)
        ]
        self.linear.append(self.logit[-1])  # nothing is left to be mapped
        came = [
            standing(logits[: len(ids) - 1 - start], ids[start + 1 : start + 1 + len(logits)].to(logits.device))
            for start, logits in self._logits(last)
        ]
        self.rank, self.probability = (torch.cat(parts).tolist() for parts in zip(*came, strict=True))

    def _guesses(self, x: Tensor) -> tuple[list[int], list[float]]:
        parts = [leading(logits) for _, logits in self._logits(x)]
        token, probability = (torch.cat(part).tolist() for part in zip(*parts, strict=True))
        return token, probability

    def _logits(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (first token, logits [m, v]) for x [1, n, d], some tokens at a time: vocabularies are large."""
        for start in range(0, x.shape[1], self._step):
            yield start, self._runner.logits(x[:, start : start + self._step])[0]


def _results(tokenizer: PreTrainedTokenizerBase, ids: Tensor, trace: _Trace, lens: _Lens) -> tuple[TokenResult, ...]:
    names = ("relative_error", "bias_share", "stream_norm", "contribution_norm", "cosine")
    columns = {name: torch.stack(getattr(trace, name), 1) for name in names}
    sinks = torch.stack(trace.sink, 1).tolist()

    def guesses(found: list[tuple[list[int], list[float]]], at: int) -> tuple[Guess, ...]:
        return tuple(Guess(token_text(tokenizer, token[at]), probability[at]) for token, probability in found)

    results = []
    for at, token in enumerate(ids.tolist()):
        more = at + 1 < len(ids)
        values = {
            name: tuple(None if math.isnan(v) else v for v in column[at].tolist()) for name, column in columns.items()
        }
        results.append(
            TokenResult(
                position=at,
                id=token,
                token=token_text(tokenizer, token),
                **values,
                sink=tuple(sinks[at]),
                logit_lens=guesses(lens.logit, at),
                linear_lens=guesses(lens.linear, at),
                next_rank=lens.rank[at] if more else None,
                next_probability=lens.probability[at] if more else None,
            )
        )
    return tuple(results)
