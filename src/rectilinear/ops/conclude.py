"""The end of a scan: what it says about itself beside the figures, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rectilinear.data.pieces import Pieces
from rectilinear.models.load import tokenizer_fingerprint
from rectilinear.models.stack import width
from rectilinear.ops.assemble import layer_results
from rectilinear.ops.layers import Gatherer
from rectilinear.ops.parts import Submodules
from rectilinear.ops.provenance import model_facts, run_facts
from rectilinear.results import LayerResult, ScanResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRUSTED_TOKENS_PER_D = 20


def scan_facts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, pieces: Pieces) -> dict[str, Any]:
    """Return what is known of a scan before it begins."""
    return {
        **model_facts(model),
        "tokenizer_fingerprint": None if tokenizer is None else tokenizer_fingerprint(tokenizer),
        "text": "texts given in Python",
        **pieces.facts(width(model)),
        "threads": torch.get_num_threads(),
        **run_facts(),
    }


def concluded(
    gatherer: Gatherer,
    parts: Submodules | None,
    tokenizer: PreTrainedTokenizerBase | None,
    facts: dict[str, Any],
    notes: list[str],
) -> ScanResult:
    """Return the result of what was gathered, and write the moments that are to be kept.

    facts: of `scan_facts`, with the options of the scan.
    """
    layers, arrays = layer_results(gatherer, parts, tokenizer, facts["seed"])
    if gatherer.spans is not None:
        arrays |= gatherer.spans.arrays()
    arrays |= gatherer.passage.arrays()
    ordinary = facts["tokens_fit"] - max(layer.sinks.count for layer in layers)
    facts["tokens_per_d"] = {**facts["tokens_per_d"], "ordinary": round(ordinary / facts["d"], 3)}
    notes = notes + _warnings(facts, layers) + (_unrecognised(parts, layers) if parts is not None else [])
    kept = gatherer.keeper
    if kept is not None:
        kept.finish(gatherer.pairs(), facts, [p.limit(facts["sink_multiple"]) for p in gatherer.positions])
    passage = gatherer.passage.passage(tokenizer)
    return ScanResult(facts, layers, tuple(notes), arrays, passage, None if kept is None else kept.folder)


def _unrecognised(parts: Submodules, layers: tuple[LayerResult, ...]) -> list[str]:
    """Return a warning where layers have no submodules to score."""
    kinds = [parts.kinds[layer.layer] for layer in layers if not layer.submodules]
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
