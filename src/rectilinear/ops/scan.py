"""The scan: one pass over the text, and everything measured about every layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from rectilinear.core.spans import chosen_layers
from rectilinear.data.pieces import WHOLE, Pieces, Share, cut_pieces, from_ids
from rectilinear.errors import ModelError, TextError
from rectilinear.models.stack import decoder_stack, width
from rectilinear.ops.carriers import Kinds
from rectilinear.ops.conclude import concluded, scan_facts
from rectilinear.ops.forecast import budget_of, check_holdout, context
from rectilinear.ops.kept import Keeper
from rectilinear.ops.layers import SAMPLE, Gatherer
from rectilinear.ops.pairs import Spans, widest
from rectilinear.ops.parts import Submodules
from rectilinear.ops.passes import Pass, Progress, run_pass, usual_batch
from rectilinear.ops.ranks import Ranks
from rectilinear.ops.resume import Checkpoints, going_on
from rectilinear.ops.spill import Spill, check_place
from rectilinear.results import ScanResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAIRS_MEMORY = 4.0  # GiB
DECIDING = (  # of a result's facts
    *("fingerprint", "tokenizer_fingerprint", "dtype", "tokens", "windows", "window", "holdout"),
    *("sink_multiple", "submodules", "seed"),
)


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
    batch_tokens: int | None = None,
    layers_path: str | None = None,
    layers: str | Iterable[int] | None = None,
    seed: int = 0,
    keep_moments: str | Path | None = None,
    spill: Spill | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_gathered: Callable[[Gatherer], None] | None = None,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints | None = None,
) -> ScanResult:
    """Measure the linearity of every layer of `model` in one pass over a text.

    Give either `texts` (documents; needs `tokenizer`), ready windows `input_ids` [n, w] int64 with an optional
    `attention_mask` [n, w], or `pieces` that several scans share (`cut_for`). The first documents (1 - `holdout` of the
    tokens) fit the maps, the rest judge them; the paper's score covers all. `tokens` defaults to 32 times the stream's
    width and at least 16,384; "all" reads all. `layers` ("12-17,20", or numbers) are those to measure, all by default;
    what lies above them is not computed.
    `window` is the longest context in tokens; `batch_tokens` pass through the model at once, by default 4,096, on a GPU
    16,384. A token is a sink where its stream norm is above `sink_multiple` times
    the median. `submodules` scores attention and MLP apart. `pairs` fits every span of layers as one map, on ordinary
    tokens, up to the length that `pairs_memory` GiB of products allow. `keep_moments` is a new or empty folder for the
    moments of all layers; `Maps.load` and `KeptMoments` read them from a saved result. `spill` bounds the memory that
    moments take. `provenance` entries are added
    to the result's. `on_gathered` is handed the moments that the result comes from. `ranks` (`ranks_here`) are the
    processes that share the batches: each calls `scan` alike, and has the result in the end. `checkpoints` says where
    the scan's state is kept on the way; one that is there is taken up, and the result is that of a scan in one go.

    Raises TextError for text too short or empty, ModelError where the decoder stack is not found, NonFiniteError for
    NaN or infinite activations, ResultError where the moments cannot be kept.
    """
    started = time.perf_counter()
    work = ready(
        model,
        tokenizer,
        texts,
        input_ids=input_ids,
        attention_mask=attention_mask,
        pieces=pieces,
        tokens=tokens,
        window=window,
        holdout=holdout,
        submodules=submodules,
        pairs=pairs,
        pairs_memory=pairs_memory,
        sink_multiple=sink_multiple,
        batch_tokens=batch_tokens,
        layers_path=layers_path,
        layers=layers,
        seed=seed,
        spill=spill,
        provenance=provenance,
    )
    if keep_moments is not None:
        if len(work.gatherer.measured) < len(work.stack):
            raise ModelError("expected all layers where moments are kept, got a choice of them: leave one out")
        work.gatherer.keeper = Keeper(keep_moments)
    if checkpoints is not None:
        checkpoints = replace(checkpoints, share={"processes": ranks.size if ranks else 1}, ranks=ranks)
    share = WHOLE if ranks is None else ranks.share
    with going_on(checkpoints, work, work.passed(share, on_progress)) as whole:
        run_pass(whole, ranks)
    if on_gathered is not None:
        on_gathered(work.gatherer)
    result = None
    if ranks is None or not ranks.rank:
        result = concluded(work.gatherer, work.parts, tokenizer, work.facts, work.notes)
    result = result if ranks is None else ranks.from_first(result)
    assert result is not None
    seconds = round(time.perf_counter() - started + (0.0 if checkpoints is None else checkpoints.before), 3)
    return replace(
        result, provenance={**result.provenance, "processes": ranks.size if ranks else 1, "seconds": seconds}
    )


@dataclass
class Work:
    """A scan made ready: the text cut, and what gathers. notes: what there is to say about the options."""

    model: PreTrainedModel
    stack: torch.nn.ModuleList
    pieces: Pieces
    batch_tokens: int
    gatherer: Gatherer
    parts: Submodules | None
    facts: dict[str, Any]
    notes: list[str]

    def same(self) -> dict[str, Any]:
        """Return what decides the figures: what a scan and what it goes on from, or its shards, have in common."""
        spans = self.gatherer.spans
        return {
            **{name: self.facts[name] for name in DECIDING},
            "span": None if spans is None else spans.width,
            "measured": list(self.gatherer.measured),
            "batch_tokens": self.batch_tokens,
        }

    def passed(self, share: Share, on_progress: Callable[[Progress], None] | None) -> Pass:
        """Return the pass over a share of the text."""
        return Pass(
            self.model, self.stack, self.pieces, self.gatherer, self.parts, self.batch_tokens, share, on_progress
        )


def ready(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    texts: Iterable[str] | None,
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
    batch_tokens: int | None = None,
    layers_path: str | None = None,
    layers: str | Iterable[int] | None = None,
    seed: int = 0,
    spill: Spill | None = None,
    provenance: dict[str, Any] | None = None,
) -> Work:
    """Cut the text and make what gathers, before any token passes through the model; options and errors of `scan`."""
    check_holdout(holdout)
    stack = decoder_stack(model, layers_path)
    notes: list[str] = []
    if pieces is None and input_ids is not None:
        pieces = from_ids(
            _numpy(input_ids), None if attention_mask is None else _numpy(attention_mask), holdout=holdout
        )
        window = max(len(p.ids) for p in (*pieces.fit, *pieces.heldout))
    elif pieces is None:
        pieces, window, notes = cut_for(model, tokenizer, texts, tokens=tokens, window=window, holdout=holdout)

    if spill is not None:
        check_place(model.device.type)
    batch_tokens = batch_tokens or usual_batch(model.device.type)
    sample = math.ceil(SAMPLE / math.ceil(pieces.tokens / batch_tokens))
    measured = chosen_layers(layers, len(stack))
    gatherer = Gatherer(len(stack), sink_multiple=sink_multiple, sample_per_batch=sample, seed=seed, measured=measured)
    gatherer.spill = spill
    gatherer.kinds = None if tokenizer is None else Kinds(tokenizer)
    parts = Submodules(gatherer, [type(module).__name__ for module in stack]) if submodules else None
    if pairs and len(measured) < len(stack):
        raise ModelError("expected all layers for pairs, got a choice of them: leave one out")
    if pairs:
        notes += _spans(gatherer, len(stack), width(model), pieces, pairs_memory)
    unread = getattr(model, "unread", ())
    if unread:
        notes.append(f"{len(unread)} weights of layers have no place in the model and were not read, as {unread[0]}.")
    facts = {
        **scan_facts(model, tokenizer, pieces),
        "window": window,
        "holdout": holdout,
        "seed": seed,
        "sink_multiple": sink_multiple,
        "submodules": submodules,
        **(provenance or {}),
    }
    return Work(model, stack, pieces, batch_tokens, gatherer, parts, facts, notes)


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


def _numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
