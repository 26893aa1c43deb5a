"""The difference between two scans of the same text, judged by the same documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rectilinear.core.bootstrap import draws, interval
from rectilinear.data.pieces import cut_pieces, noted
from rectilinear.errors import ResultError, TextError
from rectilinear.ops.provenance import run_facts
from rectilinear.results import Change, Changes, DeltaResult, LayerDelta, ScanResult, mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OWN = ("model", "revision", "fingerprint", "model_type", "dtype", "device")
SHARED = (
    *("text", "tokens", "tokens_fit", "tokens_heldout", "tokens_per_d", "documents", "unit", "windows", "d", "window"),
    *("holdout", "sink_multiple"),
)
TOTALS = {"score": "y", "increment": "z"}


def delta(
    before: ScanResult, after: ScanResult, *, seed: int = 0, provenance: dict[str, Any] | None = None
) -> DeltaResult:
    """Return what changed between two scans, the second minus the first, layer by layer and in the mean.

    Both must have read the same windows of tokens, some of them held out. Held-out and ordinary changes have 95 %
    intervals: the held-out documents are resampled, the same ones for both models, and the maps stay as they were
    fitted. `provenance` entries are added to the result's.

    Raises ResultError for scans of different windows, depth or sink rule, and for scans without what each held-out
    document adds: nothing held out, another version's, or no arrays beside result.json.
    """
    for scan in (before, after):
        _check_whole(scan)
    _check_alike(before, after)
    parts = {
        name: [_changes_of(before, after, name, kind, seed) for kind in ("heldout", "ordinary")] for name in TOTALS
    }
    layers = tuple(
        LayerDelta(
            old.layer,
            *(
                Changes(_paper(getattr(old, name).paper, getattr(new, name).paper), *(p[0][i] for p in parts[name]))
                for name in TOTALS
            ),
        )
        for i, (old, new) in enumerate(zip(before.layers, after.layers, strict=True))
    )
    means = [scan.summary() for scan in (before, after)]
    whole = {
        name: Changes(_paper(*(m[name]["paper"] for m in means)), *(part[1] for part in parts[name])) for name in TOTALS
    }
    return DeltaResult(
        before={name: before.provenance.get(name) for name in OWN},
        after={name: after.provenance.get(name) for name in OWN},
        provenance={
            **{name: before.provenance.get(name) for name in SHARED},
            "seed": seed,
            **run_facts(),
            **(provenance or {}),
        },
        layers=layers,
        mean=whole,
        warnings=tuple(_warnings(before, after)),
    )


def same_documents(
    tokenizers: Sequence[PreTrainedTokenizerBase],
    documents: Iterable[str],
    *,
    tokens: int | None,
    window: int,
    holdout: float,
) -> list[str]:
    """Return the documents that a scan with these options reads, which are opened once, as far as they are read.

    Raises TextError unless all tokenizers cut them into the same windows of the same ids: what the tokenizers are
    called, and whether they are the same file, does not count.
    """
    read: list[str] = []
    first, *others = tokenizers
    sizes: dict[str, Any] = {"tokens": tokens, "window": window, "holdout": holdout}
    wanted = cut_pieces(first, noted(documents, read), **sizes).digest
    for tokenizer in others:
        if cut_pieces(tokenizer, read, **sizes).digest != wanted:
            raise TextError(
                "expected two models that cut the text into the same tokens, got tokenizers that differ on it: "
                "a delta would compare the texts too; use `rectilinear compare`"
            )
    return read


def check_depth(before: int, after: int) -> None:
    """Raise ResultError unless two models have the same number of layers."""
    if before != after:
        raise ResultError(
            f"expected two models of the same depth, got {before} and {after} layers: use `rectilinear compare`"
        )


def _check_whole(scan: ScanResult) -> None:
    name = scan.provenance.get("model")
    if scan.provenance.get("windows") is None:
        raise ResultError(f"the scan of {name} does not say which windows it read: scan again with this version")
    if not scan.provenance.get("tokens_heldout"):
        raise ResultError(
            f"the scan of {name} held nothing out, and in-sample deltas cannot be told from noise: scan again with a "
            "--holdout above 0"
        )
    if "ordinary_errors" not in scan.arrays or "heldout_errors" not in scan.arrays:
        raise ResultError(
            f"the scan of {name} lacks what each held-out document adds (arrays.safetensors): scan again with this "
            "version"
        )


def _check_alike(before: ScanResult, after: ScanResult) -> None:
    old, new = before.provenance, after.provenance
    check_depth(len(before.layers), len(after.layers))
    for name, says in (
        ("windows", "the same windows of tokens: scan both with the same tokenizer, --text, --tokens and --window"),
        ("holdout", "the same --holdout"),
        ("sink_multiple", "the same --sink-multiple"),
    ):
        if old[name] != new[name]:
            raise ResultError(f"expected two scans of {says}; got {old[name]} and {new[name]}")


def _changes_of(before: ScanResult, after: ScanResult, name: str, kind: str, seed: int) -> tuple[list[Change], Change]:
    """Return the change of "score" or "increment", "heldout" or "ordinary", in every layer and in the mean."""
    sides = [[getattr(getattr(layer, name), kind) for layer in scan.layers] for scan in (before, after)]
    known = np.array([None not in values for values in zip(*sides, strict=True)])
    gaps = [_minus(*values) for values in zip(*sides, strict=True)]
    edges: Any = np.full((2, len(gaps)), np.nan)
    middle: list[float | None] = [None, None]
    blocks = before.arrays[f"{kind}_errors"].shape[1]
    if known.any() and blocks > 1:
        times = draws(blocks, seed)
        drawn = _resampled(after, name, kind, times) - _resampled(before, name, kind, times)
        edges = interval(drawn).numpy()
        middle = interval(drawn[:, torch.from_numpy(known)].mean(1)).tolist()
    changes = []
    for old, new, gap, edge in zip(*sides, gaps, edges.T, strict=True):
        low, high = (None if np.isnan(value) else float(value) for value in edge)
        changes.append(Change(old, new, gap, low, high))
    return changes, Change(mean(sides[0]), mean(sides[1]), mean(gaps), *middle)


def _resampled(scan: ScanResult, name: str, kind: str, times: Tensor) -> Tensor:
    """Return the scores [resamples, L] of a scan with its held-out documents drawn `times` [resamples, blocks]."""
    errors, totals = (
        torch.from_numpy(scan.arrays[f"{kind}_{sums}"]).double() for sums in ("errors", f"totals_{TOTALS[name]}")
    )
    scores = [getattr(getattr(layer, name), kind) for layer in scan.layers]
    own = torch.tensor([float("nan") if score is None else 1 - score for score in scores], dtype=torch.float64)
    # Totals are kept about the fit rows' mean; the score is about the held-out rows' own. What the score says of the
    # sum of all errors gives the factor between the two. A layer without any error needs none.
    scale = torch.where(own > 0, errors.sum(1) / (own * totals.sum(1)), own + 1)
    return 1 - (times @ errors.T) / (scale * (times @ totals.T))


def _paper(before: float | None, after: float | None) -> Change:
    return Change(before, after, _minus(before, after))


def _minus(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _warnings(before: ScanResult, after: ScanResult) -> Iterator[str]:
    old, new = before.provenance, after.provenance
    if old["fingerprint"] == new["fingerprint"]:
        yield "Both are the same model: its fingerprint is the same."
    if old["dtype"] != new["dtype"]:
        yield f"The precisions differ, {old['dtype']} before and {new['dtype']} after: rounding is part of the delta."
    notes = dict.fromkeys((*before.warnings, *after.warnings))
    yield from notes
