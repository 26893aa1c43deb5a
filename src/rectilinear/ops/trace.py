"""Linearity along training: every checkpoint scanned on the very same windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch

from rectilinear.core.bootstrap import mean_score_interval
from rectilinear.data.pieces import Pieces, cut_pieces, noted
from rectilinear.errors import ModelError, NonFiniteError, ResultError
from rectilinear.files import discard
from rectilinear.models.checkpoints import Checkpoint, find_checkpoints
from rectilinear.models.load import check_found, device_of, load, load_tokenizer, skeleton
from rectilinear.models.stack import decoder_stack, width
from rectilinear.ops.forecast import Forecast, check_holdout, forecast, least_seconds
from rectilinear.ops.passes import Progress as ScanProgress
from rectilinear.ops.provenance import run_facts
from rectilinear.ops.resume import Checkpoints
from rectilinear.ops.scan import cut_for, scan
from rectilinear.results import LayerScores, ScanResult, Score, TracePoint, TraceResult, mean

# What a trace that goes on must have in common with what is there, beside the windows.
SETTINGS = ("model", "text", "tokens", "window", "holdout", "sink_multiple", "seed", "dtype", "layers_path")


@dataclass(frozen=True)
class Progress:
    """How far a trace is: tokens done of total, over all checkpoints to be scanned, and what is at work."""

    done: int
    total: int
    said: str


@dataclass(frozen=True)
class Planned:
    """One checkpoint of a trace to come; scanned: an earlier run did it."""

    step: int
    name: str
    scanned: bool


@dataclass(frozen=True)
class Outline:
    """What a trace would do: its checkpoints, the size of one scan, and the least time in all.

    seconds: as in `ops.forecast.least_seconds`; None where all tokens of the text are read.
    """

    checkpoints: tuple[Planned, ...]
    scan: Forecast
    seconds: float | None


@dataclass(frozen=True)
class _Drawn:
    """What every checkpoint is scanned on: pieces of at most `window` tokens, and notes on them."""

    pieces: Pieces
    window: int
    notes: tuple[str, ...]


def trace(
    model: str | None,
    texts: Iterable[str],
    *,
    revisions: str | None = None,
    checkpoints: str | None = None,
    tokens: int | Literal["all"] | None = None,
    window: int = 512,
    holdout: float = 0.25,
    sink_multiple: float = 10.0,
    batch_tokens: int | None = None,
    dtype: str = "auto",
    device: str = "auto",
    layers_path: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    done: TraceResult | None = None,
    states: Path | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda state: None,
    on_scan: Callable[[TraceResult, ScanResult], None] = lambda result, scan: None,
) -> TraceResult:
    """Scan the checkpoints of one training on the same windows of `texts` (documents), one model at a time.

    model, revisions, checkpoints: as for `models.checkpoints.find_checkpoints`; the other options as for `scan` and
    `load`. All checkpoints are looked at before the first is scanned. `done`: what an earlier run found; its scans are
    not made again unless the weights are others now. `on_scan` is handed each scan with the trace so far. `states`:
    a folder for the state of the scan under way, which is taken up where it is there and gone in the end.

    Raises ModelError for a checkpoint that is not whole, is not found, has another shape or cuts the text otherwise
    than the first one; ResultError where `done` was made with other settings; and what `scan` raises.
    """
    check_holdout(holdout)
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    shared: dict[str, Any] = {
        "holdout": holdout,
        "sink_multiple": sink_multiple,
        "seed": seed,
        "layers_path": layers_path,
    }
    found = find_checkpoints(model, revisions=revisions, checkpoints=checkpoints)
    check_checkpoints(found, trust_remote_code, on_progress)
    bare = skeleton(found[0].model, revision=found[0].revision, **loading)
    decoder_stack(bare, layers_path)  # a wrong path is said now
    on_progress(Progress(0, 0, "drawing the windows"))
    drawn = _draw(found, texts, bare, trust_remote_code, tokens=tokens, window=window, holdout=holdout)
    facts = {
        "model": _named(model or str(checkpoints)),
        "text": "texts given in Python",
        **drawn.pieces.facts(width(bare)),
        "window": drawn.window,
        **shared,
        "dtype": str(bare.dtype).removeprefix("torch."),
        **run_facts(),
        **(provenance or {}),
    }
    points = {} if done is None else _kept(done, facts, found, on_progress)
    facts["steps"] = sorted({*points, *(one.step for one in found)})
    left = [one for one in found if one.step not in points]
    for index, one in enumerate(left):
        tell = _teller(on_progress, f"step {one.step:,}, {index + 1} of {len(left)}", index, len(left))
        tell(ScanProgress(0, drawn.pieces.tokens, None))
        origin = {"text": facts["text"], "command": facts["command"], "step": one.step}
        kept = None if states is None else Checkpoints(states / f"step-{one.step}")
        own: dict[str, Any] = {"provenance": origin, "on_progress": tell, "checkpoints": kept}
        weights = one.digest()  # before they are loaded: what is put in their place meanwhile is scanned next time
        scanned = _scan(one, drawn, loading, **shared, batch_tokens=batch_tokens, **own)
        points[one.step] = replace(_point(one, scanned, drawn.notes, seed), weights=weights)
        on_scan(_result(facts, points), scanned)
        if states is not None:
            discard(states)
    if states is not None:
        discard(states)  # where nothing was left to scan: of a run that was killed before it could
    return _result(facts, points)


def outline(
    model: str | None,
    *,
    revisions: str | None = None,
    checkpoints: str | None = None,
    done: TraceResult | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    layers_path: str | None = None,
    **sizes: Any,
) -> Outline:
    """Return what `trace` with these options would do; no text is read, so that of `done` is not compared.

    Weights are read only to see whether they are those of `done`. Raises what `trace` would before it reads them.
    """
    found = find_checkpoints(model, revisions=revisions, checkpoints=checkpoints)
    check_checkpoints(found, trust_remote_code)
    loading: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    bare = skeleton(found[0].model, revision=found[0].revision, **loading)
    size = forecast(bare, layers_path=layers_path, **sizes)
    fresh = () if done is None else _fresh(done, found)
    planned = tuple(Planned(one.step, one.name, one.step in fresh) for one in found)
    seconds = None
    if size.tokens is not None:
        left = size.tokens * sum(not one.scanned for one in planned)
        where = device_of(device)
        seconds = least_seconds(bare, left, "cuda" if where == "balanced" else where, layers_path)
    return Outline(planned, size, seconds)


def check_checkpoints(
    found: Sequence[Checkpoint], trust_remote_code: bool, on_progress: Callable[[Progress], None] = lambda state: None
) -> None:
    """Raise ModelError for a checkpoint that is not whole, cannot be found, or is of another shape than the first."""
    shapes = []
    for one in found:
        on_progress(Progress(0, 0, f"looking at {one.name}"))
        config = check_found(one.model, revision=one.revision, trust_remote_code=trust_remote_code).get_text_config()
        shapes.append((config.num_hidden_layers, config.hidden_size))
        if shapes[-1] != shapes[0]:
            (layers, d), (first, first_d) = shapes[-1], shapes[0]
            raise ModelError(
                f"expected checkpoints of one training, got {found[0].name} of {first} layers and width {first_d}, "
                f"and {one.name} of {layers} and {d}"
            )


def _draw(
    found: Sequence[Checkpoint], texts: Iterable[str], bare: Any, trust_remote_code: bool, **sizes: Any
) -> _Drawn:
    """Cut the text once, and see that the tokenizer of every checkpoint would cut it just so."""
    read: list[str] = []
    tokenizers = (load_tokenizer(c.model, revision=c.revision, trust_remote_code=trust_remote_code) for c in found)
    pieces, window, notes = cut_for(bare, next(tokenizers), noted(texts, read), **sizes)
    for one, tokenizer in zip(found[1:], tokenizers, strict=True):
        other = cut_pieces(tokenizer, read, tokens=pieces.requested, window=window, holdout=sizes["holdout"])
        if other.digest != pieces.digest:
            raise ModelError(
                f"expected checkpoints with one tokenizer, got {found[0].name} and {one.name}, which cut the text "
                "otherwise: scores on other tokens cannot be compared"
            )
    return _Drawn(pieces, window, tuple(notes))


def _named(model: str) -> str:
    """Return a name of a model, of a folder without what does not tell it apart (./, /)."""
    return str(Path(model)) if Path(model).exists() else model


def _kept(
    done: TraceResult, facts: dict[str, Any], found: Sequence[Checkpoint], on_progress: Callable[[Progress], None]
) -> dict[int, TracePoint]:
    """Return by step what need not be scanned again; raises ResultError where the settings differ."""
    before = done.provenance
    unlike = [name for name in SETTINGS if before.get(name) != facts[name]]
    if unlike:
        said = ", ".join(f"{name} {facts[name]}, which was {before.get(name)}" for name in unlike)
        raise ResultError(f"expected the settings of the trace to go on with, got {said}: use another --out")
    if before.get("windows") != facts["windows"]:
        raise ResultError(
            f"expected the text of the trace to go on with, got another under the name {facts['text']}, or another "
            "tokenizer: use another --out"
        )
    return _fresh(done, found, on_progress)


def _fresh(
    done: TraceResult, found: Sequence[Checkpoint], on_progress: Callable[[Progress], None] = lambda state: None
) -> dict[int, TracePoint]:
    """Return by step what was found of checkpoints whose weights are still the same, or that are gone."""
    here = {one.step: one for one in found}
    fresh = {}
    for point in done.points:
        on_progress(Progress(0, 0, f"comparing {point.name} with what was scanned"))
        if point.step not in here or _same_weights(point, here[point.step]):
            fresh[point.step] = point
    return fresh


def _same_weights(point: TracePoint, now: Checkpoint) -> bool:
    """Tell whether a checkpoint is what was scanned; a trace of an earlier version knows only when it was.

    A scan's time is kept in whole seconds, so the files' is cut to them too.
    """
    if point.weights is None:
        return int(now.written or 0) <= datetime.fromisoformat(point.time).timestamp()
    return now.digest() in (None, point.weights)


def _teller(
    on_progress: Callable[[Progress], None], said: str, before: int, count: int
) -> Callable[[ScanProgress], None]:
    """Return what reports a scan as part of `count`, with `before` behind it; all are of as many tokens."""

    def tell(state: ScanProgress) -> None:
        score = "" if state.score is None else f", mean held-out score {state.score:.4f}"
        on_progress(Progress(before * state.total + state.done, count * state.total, said + score))

    return tell


def _scan(checkpoint: Checkpoint, drawn: _Drawn, loading: dict[str, Any], **options: Any) -> ScanResult:
    """Load a checkpoint, scan it and let go of it; an error of the scan names it."""
    model, tokenizer = load(checkpoint.model, revision=checkpoint.revision, **loading)
    try:
        return scan(model, tokenizer, pieces=drawn.pieces, window=drawn.window, **options)
    except NonFiniteError as error:
        raise NonFiniteError(f"{checkpoint.name}: {error}") from error


def _point(checkpoint: Checkpoint, found: ScanResult, notes: tuple[str, ...], seed: int) -> TracePoint:
    layers = tuple(
        LayerScores(one.layer, one.score, one.increment, one.norm_ratio, one.cosine, one.sinks.count)
        for one in found.layers
    )
    summary = found.summary()
    return TracePoint(
        step=checkpoint.step,
        name=checkpoint.name,
        revision=found.provenance["revision"] or checkpoint.revision,
        fingerprint=found.provenance["fingerprint"],
        time=found.provenance["time"],
        score=_mean(found, "score", "heldout_totals_y", seed),
        increment=_mean(found, "increment", "heldout_totals_z", seed),
        norm_ratio=summary["norm_ratio"],
        cosine=summary["cosine"],
        layers=layers,
        warnings=notes + found.warnings,
    )


def _mean(found: ScanResult, kind: str, totals: str, seed: int) -> Score:
    """Return the mean of a score over layers, with an interval where something was held out."""
    scores: list[Score] = [getattr(layer, kind) for layer in found.layers]
    interval: tuple[float | None, float | None] = (None, None)
    known = [i for i, score in enumerate(scores) if score.heldout is not None]
    if known:
        sums, spread = (torch.from_numpy(found.arrays[name][known]) for name in ("heldout_errors", totals))
        judged = torch.tensor([scores[i].heldout for i in known], dtype=torch.float64)
        # The totals are about the fit rows' mean, the score about the held-out rows' own: this much less.
        about_own = (sums.sum(1) / (1 - judged)).where(judged < 1, spread.sum(1))
        scales = about_own / spread.sum(1)
        interval = mean_score_interval(sums, spread, scales, seed=seed)
    kinds = {name: mean(getattr(score, name) for score in scores) for name in ("paper", "heldout", "ordinary")}
    return Score(kinds["paper"], kinds["heldout"], *interval, kinds["ordinary"], None, None)


def _result(facts: dict[str, Any], points: dict[int, TracePoint]) -> TraceResult:
    return TraceResult(facts, tuple(points[step] for step in sorted(points)))
