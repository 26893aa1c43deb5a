"""Sweep: what a model is worth against the number of layers changed, for any selectors and repairs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError
from rectilinear.models.load import model_id
from rectilinear.ops.cut.bench import Bench, OnProgress, Options, evaluating, parameters
from rectilinear.ops.cut.registry import REPAIRS
from rectilinear.ops.cut.repairs import Work, repaired
from rectilinear.ops.cut.streams import Chunks, Teacher
from rectilinear.ops.provenance import run_facts
from rectilinear.ops.speed import now
from rectilinear.results import Loss, Point, SweepResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Iterable[str],
    judge_texts: Iterable[str] | None = None,
    counts: Sequence[int],
    selects: Sequence[str] = ("kl",),
    repairs: Sequence[str] = ("refit",),
    journal: Path | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> SweepResult:
    """Judge the model with each of `counts` layers changed, by every selector and repair; the model stays as it is.

    The other arguments are those of `prune`. The dense streams are kept for all positions, of the tokens that a search
    looks at: those are what repairs are fitted on. Raises as `prune` does.
    """
    started = time.perf_counter()
    wanted = sorted({count for count in counts if count > 0})
    if not wanted:
        raise ModelError("expected a range of layers to remove, as 0:12, got none")
    base = Options(**options)
    wishes = [replace(base, select=s, repair=r) for s in dict.fromkeys(selects) for r in dict.fromkeys(repairs)]
    kinds = list(dict.fromkeys(wish.checked() for wish in wishes))
    bench = Bench(model, tokenizer, texts, kinds[0], judge_texts=judge_texts, journal=journal, on_progress=on_progress)
    with evaluating(model):
        teacher = bench.search_teacher
        dense = bench.dense(teacher)
        loss, speed = _passed(bench, Work(bench.runner, teacher, frozenset()), dense)
        first = Point("dense", "none", (), loss, 1.0, parameters(model), speed)
        points = [point for kind in kinds for point in _points(bench, kind, teacher, dense, first, wanted)]
    facts = {
        "model": model_id(model),
        "fingerprint": bench.fingerprint,
        "tokens": teacher.tokens,
        "judge_tokens": bench.judge.ids.numel(),
        "judge_apart": bench.judges_apart,
        "window": bench.window,
        "effort": base.effort,
        **run_facts(),
        **(provenance or {}),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return SweepResult(facts, len(bench.stack), first, tuple(points), tuple(bench.notes))


def within(bench: Bench, limit: float) -> tuple[tuple[int, ...], list[tuple[tuple[int, ...], float]]]:
    """Return the largest set on the selector's path whose perplexity stays within 1 + limit times the dense one.

    Stops at the first set that does not hold. Returns the sets that the selector tried as well. Raises ModelError
    where even one layer costs more.
    """
    most = len(bench.stack) - len(bench.options.protect) - 1
    teacher = bench.search_teacher
    dense = bench.dense(teacher)
    base = bench.judge.perplexity(dense)
    held: tuple[int, ...] = ()
    count, tried = 1, []
    while count <= most:
        path, found = bench.path(min(max(2 * len(held), 4), most))
        tried += found
        for size in range(count, max(path) + 1):
            work = bench.work(teacher, path[size])
            repaired(work, REPAIRS[bench.options.repair])
            loss, _ = _passed(bench, work, dense)
            work.undo()
            if loss.perplexity > (1 + limit) * base:
                if not held:
                    raise ModelError(
                        f"expected a cut within {limit:.1%} of the perplexity {base:.2f}, but one layer less gives "
                        f"{loss.perplexity:.2f}: allow more"
                    )
                return held, tried
            held, count = path[size], size + 1
    return held, tried


def _points(
    bench: Bench, kind: Options, teacher: Teacher, dense: Chunks, first: Point, counts: list[int]
) -> Iterator[Point]:
    """Yield the points of one selector and repair."""
    bench.options = kind
    path, _ = bench.path(counts[-1])
    for count in counts:
        work = bench.work(teacher, path[count])
        try:
            repaired(work, REPAIRS[kind.repair], after=bench.refit_after)
            loss, speed = _passed(bench, work, dense)
        finally:
            work.undo()
        left = [layer for i, layer in enumerate(bench.stack) if i not in work.removed]
        kept = first.parameters - sum(map(parameters, bench.stack)) + sum(map(parameters, left))
        maps = sum(m.weight.numel() + m.bias.numel() for m in work.blocks.values())
        ratio = loss.perplexity / first.loss.perplexity
        yield Point(kind.select, kind.repair, path[count], loss, ratio, kept + maps, speed)


def _passed(bench: Bench, work: Work, dense: Chunks) -> tuple[Loss, float]:
    """Return what the model as cut and repaired is worth on the judge's windows, and the tokens/s of the pass."""
    ids = bench.judge.ids
    start = now(bench.model)
    chunks = work.through([bench.runner.embed(part) for part in ids.split(bench.batch)])
    speed = ids.numel() / (now(bench.model) - start)
    return Loss(bench.judge.perplexity(chunks), bench.judge.divergence(chunks, dense)), round(speed, 1)
