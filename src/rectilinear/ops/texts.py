"""Dependence on data: one model scanned on several texts, and the maps of each judged on all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.core.linear import error_of, ratio
from rectilinear.core.moments import Moments
from rectilinear.errors import TextError
from rectilinear.ops.layers import Gatherer
from rectilinear.ops.pair import Pair
from rectilinear.ops.passes import Progress
from rectilinear.ops.resume import Checkpoints
from rectilinear.ops.scan import scan
from rectilinear.results import ScanResult, Score, TextsResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Table = list[list[float | None]]


def scan_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Iterable[str]],
    *,
    provenance: Mapping[str, dict[str, Any]] | None = None,
    on_progress: Callable[[str, Progress], None] | None = None,
    checkpoints: Checkpoints | None = None,
    **options: Any,
) -> TextsResult:
    """Scan the model on each of `texts` (documents by name) and judge the maps of each text on all the others.

    Every token passes through the model once. A map is that of the text's fit documents, judged on all tokens of
    another text, and at home on the documents held out; "ordinary" leaves sink tokens out of both. provenance: entries
    for each text's result. The other options are those of `scan`; moments and states on the way are kept in a folder of
    each text's name. Raises as `scan` does, and TextError for fewer than two texts or where nothing is held out.
    """
    if len(texts) < 2:
        raise TextError(f"expected two texts or more to compare, got {len(texts)}")
    if not options.get("holdout", True):
        raise TextError("expected a holdout above 0 for several texts: at home, a map is judged on documents held out")
    kept = options.pop("keep_moments", None)
    results: dict[str, ScanResult] = {}
    pairs: dict[str, list[Pair]] = {}
    for name, documents in texts.items():

        def tell(state: Progress, name: str = name) -> None:
            if on_progress is not None:
                on_progress(name, state)

        def keep(gatherer: Gatherer, name: str = name) -> None:
            pairs[name] = gatherer.pairs()

        facts = {"name": name, **((provenance or {}).get(name) or {})}
        results[name] = scan(
            model,
            tokenizer,
            documents,
            keep_moments=None if kept is None else Path(kept) / name,
            provenance=facts,
            on_progress=tell,
            on_gathered=keep,
            checkpoints=None if checkpoints is None else replace(checkpoints, folder=checkpoints.folder / name),
            **options,
        )
    layers = range(len(next(iter(pairs.values()))))
    every = {name: [pair.every for pair in found] for name, found in pairs.items()}
    transfer: dict[str, dict[str, list[Table]]] = {
        kind: {"heldout": [], "ordinary": []} for kind in ("score", "increment")
    }
    for layer in layers:
        for ordinary in (False, True):
            judged = [
                [_judged(results, pairs, every, layer, (source, target), ordinary) for target in texts]
                for source in texts
            ]
            for index, kind in enumerate(("score", "increment")):
                table = [[cell[index] for cell in row] for row in judged]
                transfer[kind]["ordinary" if ordinary else "heldout"].append(table)
    return TextsResult(results, transfer)


def _judged(
    results: Mapping[str, ScanResult],
    pairs: Mapping[str, list[Pair]],
    every: Mapping[str, list[Moments]],
    layer: int,
    way: tuple[str, str],
    ordinary: bool,
) -> tuple[float | None, float | None]:
    """Return score and increment score of one text's map on another, or on its own documents held out."""
    source, target = way
    if source == target:
        home = results[source].layers[layer]
        return _own(home.score, ordinary), _own(home.increment, ordinary)
    pair, other = pairs[source][layer], pairs[target][layer]
    moments = other.ordinary if ordinary else every[target][layer]
    error = error_of(pair.fitted(ordinary=ordinary), moments)
    return ratio(error, float(moments.syy)), ratio(error, float(moments.szz))


def _own(score: Score, ordinary: bool) -> float | None:
    return score.ordinary if ordinary else score.heldout
