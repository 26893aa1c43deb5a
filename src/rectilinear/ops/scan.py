"""The scan: one pass over the text, and everything measured about every layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from rectilinear.data.pieces import Batch, Piece, Pieces, batches, cut_pieces, from_ids
from rectilinear.errors import TextError
from rectilinear.models.load import tokenizer_fingerprint
from rectilinear.models.mode import eval_mode
from rectilinear.models.stack import decoder_stack, forward, watch, width
from rectilinear.models.submodules import watch_parts
from rectilinear.ops.assemble import layer_results
from rectilinear.ops.carriers import Kinds
from rectilinear.ops.forecast import budget_of, check_holdout, context
from rectilinear.ops.kept import Keeper
from rectilinear.ops.layers import SAMPLE, Gatherer, Rows
from rectilinear.ops.pair import Pair
from rectilinear.ops.pairs import Spans, widest
from rectilinear.ops.parts import Submodules
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.ops.spread import spread
from rectilinear.results import LayerResult, ScanResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRUSTED_TOKENS_PER_D = 20
PAIRS_MEMORY = 4.0  # GiB
MAX_BLOCKS = 1000  # more held-out documents than this are resampled in groups of neighbours


@dataclass(frozen=True)
class Progress:
    """How far a scan is: tokens done of total, and the mean held-out score so far (None while fitting)."""

    done: int
    total: int
    score: float | None


def scan(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    texts: Iterable[str] | None = None,
    *,
    input_ids: Any = None,
    attention_mask: Any = None,
    pieces: Pieces | None = None,
    tokens: int | Literal["all"] | None = None,
    window: int = 512,
    holdout: float = 0.25,
    submodules: bool = False,
    pairs: bool = False,
    pairs_memory: float = PAIRS_MEMORY,
    sink_multiple: float = 10.0,
    batch_tokens: int = 4096,
    layers_path: str | None = None,
    seed: int = 0,
    keep_moments: str | Path | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_gathered: Callable[[Gatherer], None] | None = None,
) -> ScanResult:
    """Measure the linearity of every layer of `model` in one pass over a text.

    Give either `texts` (documents; needs `tokenizer`), ready windows `input_ids` [n, w] int64 with an optional
    `attention_mask` [n, w], or `pieces` that several scans share (`cut_for`). The first documents (1 - `holdout` of the
    tokens) fit the maps, the rest judge them; the paper's score covers all. `tokens` defaults to 32 times the stream's
    width and at least 16,384; "all" reads all.
    `window` is the longest context in tokens. A token is a sink where its stream norm is above `sink_multiple` times
    the median. `submodules` scores attention and MLP apart. `pairs` fits every span of layers as one map, on ordinary
    tokens, up to the length that `pairs_memory` GiB of products allow. `keep_moments` is a new or empty folder for the
    moments of all layers; `Maps.load` and `KeptMoments` read them from a saved result. `provenance` entries are added
    to the result's. `on_gathered` is handed the moments that the result comes from.

    Raises TextError for text too short or empty, ModelError where the decoder stack is not found, NonFiniteError for
    NaN or infinite activations, ResultError where the moments cannot be kept.
    """
    check_holdout(holdout)
    started = time.perf_counter()
    stack = decoder_stack(model, layers_path)
    notes: list[str] = []
    if pieces is None and input_ids is not None:
        pieces = from_ids(
            _numpy(input_ids), None if attention_mask is None else _numpy(attention_mask), holdout=holdout
        )
        window = max(len(p.ids) for p in (*pieces.fit, *pieces.heldout))
    elif pieces is None:
        pieces, window, notes = cut_for(model, tokenizer, texts, tokens=tokens, window=window, holdout=holdout)

    sample = math.ceil(SAMPLE / math.ceil(pieces.tokens / batch_tokens))
    gatherer = Gatherer(len(stack), sink_multiple=sink_multiple, sample_per_batch=sample, seed=seed)
    gatherer.kinds = None if tokenizer is None else Kinds(tokenizer)
    gatherer.keeper = None if keep_moments is None else Keeper(keep_moments)
    parts = Submodules(gatherer) if submodules else None
    if pairs:
        notes += _spans(gatherer, len(stack), width(model), pieces, pairs_memory)
    run_pass(model, stack, pieces, gatherer, parts, batch_tokens, on_progress)
    layers, arrays = layer_results(gatherer, parts, tokenizer, seed)
    if gatherer.spans is not None:
        arrays |= gatherer.spans.arrays()
    arrays |= gatherer.passage.arrays()
    facts = {
        **_facts(model, tokenizer, pieces, layers),
        "window": window,
        "holdout": holdout,
        "seed": seed,
        "sink_multiple": sink_multiple,
        "submodules": submodules,
    }
    notes += _warnings(facts, layers)
    if submodules:
        notes += _unrecognised(stack, layers)
    facts["seconds"] = round(time.perf_counter() - started, 3)
    facts |= provenance or {}
    if gatherer.keeper is not None:
        gatherer.keeper.finish(gatherer.pairs(), facts, [p.limit(sink_multiple) for p in gatherer.positions])
    if on_gathered is not None:
        on_gathered(gatherer)
    kept = None if keep_moments is None else Path(keep_moments)
    return ScanResult(facts, layers, tuple(notes), arrays, gatherer.passage.passage(tokenizer), kept)


def cut_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Iterable[str] | None,
    *,
    tokens: int | Literal["all"] | None,
    window: int,
    holdout: float,
) -> tuple[Pieces, int, list[str]]:
    """Return texts cut for a scan of `model`, the window as it is, and what there is to say about both.

    Options and errors as for `scan`.
    """
    if texts is None or tokenizer is None:
        raise TextError("expected texts with a tokenizer, or input_ids: got neither; see help(rectilinear.scan)")
    notes = []
    longest = context(model, window)
    if longest < window:
        notes.append(f"The window is cut from {window} to {longest} tokens, the model's longest context.")
    pieces = cut_pieces(tokenizer, texts, tokens=budget_of(model, tokens), window=longest, holdout=holdout)
    if pieces.exhausted and tokens is not None:
        notes.append(f"The text has {pieces.tokens:,} tokens, fewer than the {pieces.requested:,} asked for: all used.")
    return pieces, longest, notes


def _spans(gatherer: Gatherer, layers: int, d: int, pieces: Pieces, gib: float) -> list[str]:
    """Let the gatherer keep the products of all positions; return what there is to say about it."""
    if not pieces.heldout:
        raise TextError("expected a holdout above 0 for pairs: spans are judged on documents held out")
    longest = widest(layers, d, gib)
    gatherer.spans = Spans(layers, longest)
    cut = f"Spans are measured up to {longest} layers: longer ones need more memory than {gib:g} GiB (--pairs-memory)."
    return [cut] if longest < layers else []


def run_pass(
    model: PreTrainedModel,
    stack: torch.nn.ModuleList,
    pieces: Pieces,
    gatherer: Gatherer,
    parts: Submodules | None,
    batch_tokens: int,
    on_progress: Callable[[Progress], None] | None,
) -> None:
    """Run the model over all pieces once: the fit part, then the held-out part."""
    blocks = _blocks(pieces)
    done = 0
    with torch.inference_mode(), eval_mode(model), watch(stack, gatherer.on_layer), _watch_parts(stack, parts):
        for part in (pieces.fit, pieces.heldout):
            heldout = part is pieces.heldout
            if heldout and part:
                if gatherer.keeper is not None:
                    gatherer.keeper.fitted(gatherer.pairs())
                pairs = [*gatherer.pairs(), *(parts.pairs.values() if parts else ())]
                spread(partial(Pair.start_heldout, blocks=max(blocks.values()) + 1), pairs)
            for batch in batches(part, batch_tokens):
                gatherer.rows = rows_of(batch, blocks if heldout else None)
                done += run_batch(model, stack, batch)
                if on_progress is not None:
                    on_progress(Progress(done, pieces.tokens, gatherer.running_score()))


def run_batch(model: PreTrainedModel, stack: torch.nn.ModuleList, batch: Batch) -> int:
    """Let a batch pass through the model; return the number of its tokens, pads left out."""
    ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
    forward(model, stack, ids.to(model.device), None if batch.mask.all() else mask.long().to(model.device))
    return int(batch.mask.sum())


def _watch_parts(stack: torch.nn.ModuleList, parts: Submodules | None) -> AbstractContextManager[None]:
    return nullcontext() if parts is None else watch_parts(stack, parts.on_parts)


def _blocks(pieces: Pieces) -> dict[tuple[int, int], int]:
    """Return for each held-out piece the number of the block they are resampled with: their document, or themselves."""
    by_window = pieces.unit == "window"

    def unit(piece: Piece) -> tuple[int, int]:
        return piece.document, piece.start if by_window else 0

    units = {key: index for index, key in enumerate(dict.fromkeys(unit(p) for p in pieces.heldout))}
    count = max(len(units), MAX_BLOCKS)
    return {(p.document, p.start): units[unit(p)] * MAX_BLOCKS // count for p in pieces.heldout}


def rows_of(batch: Batch, blocks: dict[tuple[int, int], int] | None = None) -> Rows:
    """Return the real tokens of a batch; `blocks` as numbered by their document and start, None while fitting."""
    row, position = np.nonzero(batch.mask)
    block = None
    if blocks is not None:
        of_piece = np.array([blocks[d, s] for d, s in zip(batch.document.tolist(), batch.start.tolist(), strict=True)])
        block = torch.from_numpy(of_piece[row])
    mask = None if batch.mask.all() else torch.from_numpy(batch.mask)
    token = batch.ids[row, position]
    return Rows(mask, token, position, batch.document[row], batch.start[row] + position, block)


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    pieces: Pieces,
    layers: tuple[LayerResult, ...],
) -> dict[str, Any]:
    d = width(model)
    return {
        **model_facts(model),
        "tokenizer_fingerprint": None if tokenizer is None else tokenizer_fingerprint(tokenizer),
        "text": "texts given in Python",
        "tokens": pieces.tokens,
        "tokens_fit": pieces.tokens_fit,
        "tokens_heldout": pieces.tokens_heldout,
        "tokens_per_d": {
            "paper": round(pieces.tokens / d, 3),
            "heldout": round(pieces.tokens_fit / d, 3),
            "ordinary": round((pieces.tokens_fit - max(layer.sinks.count for layer in layers)) / d, 3),
        },
        "documents": pieces.documents,
        "unit": pieces.unit,
        "windows": pieces.digest,
        "d": d,
        **run_facts(),
    }


def _unrecognised(stack: torch.nn.ModuleList, layers: tuple[LayerResult, ...]) -> list[str]:
    """Return a warning where layers have no submodules to score."""
    kinds = [type(module).__name__ for module, layer in zip(stack, layers, strict=True) if not layer.submodules]
    if not kinds:
        return []
    named = ", ".join(dict.fromkeys(kinds))
    return [f"No attention and MLP recognised in {len(kinds)} of {len(layers)} layers ({named}): not scored apart."]


def _warnings(facts: dict[str, Any], layers: tuple[LayerResult, ...]) -> list[str]:
    notes = []
    for name, label in (("paper", "paper"), ("heldout", "held-out")):
        per_d = facts["tokens_per_d"][name]
        if per_d < TRUSTED_TOKENS_PER_D and (name == "paper" or facts["tokens_heldout"]):
            notes.append(
                f"The {label} scores rest on {per_d:.1f} tokens per dimension, below {TRUSTED_TOKENS_PER_D}: in-sample "
                "scores come out too high and held-out ones too low. Give more --tokens."
            )
    if not facts["tokens_heldout"]:
        notes.append("Nothing was held out: only the paper's in-sample scores are given.")
    elif facts["unit"] == "window":
        notes.append("Fewer than 20 documents: windows were held out and resampled instead of documents.")
    if any(layer.sinks.share_of_tokens > 0.05 for layer in layers):
        notes.append("More than 5 % of the tokens of a layer count as sinks: this is hardly massive activation.")
    return notes
