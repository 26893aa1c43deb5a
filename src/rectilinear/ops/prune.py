"""Prune: from a dense model to a smaller one, by a plan that is made here or given."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError, ResultError
from rectilinear.models.load import earlier_fingerprint
from rectilinear.models.save import save_model
from rectilinear.models.surgery import cut_, linear_block
from rectilinear.ops.cut.bench import Bench, OnProgress, Options, evaluating, judged, options_of, parameters
from rectilinear.ops.cut.registry import REPAIRS
from rectilinear.ops.cut.repairs import repaired
from rectilinear.ops.provenance import run_facts
from rectilinear.ops.sweep import within
from rectilinear.results import Plan, PruneResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Cut:
    """A cut model and how it came about."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    result: PruneResult

    @property
    def plan(self) -> Plan:
        """What was done."""
        return self.result.plan

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write a checkpoint that loads anywhere, with plan.json, prune.json and a model card, whole or not at all.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        return self.result.save(out, lambda folder: save_model(self.model, self.tokenizer, folder), force=force)


def prune(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **wishes: Any) -> Cut:
    """Return a copy of the model with fewer layers, repaired; the model given stays as it is.

    Takes what `prune_` takes, which needs half the memory.
    """
    return prune_(copy.deepcopy(model), tokenizer, **wishes)


def prune_(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Iterable[str],
    judge_texts: Iterable[str] | None = None,
    remove: int | str | None = None,
    layers: Sequence[int] | None = None,
    plan: Plan | None = None,
    max_perplexity_increase: float | None = None,
    journal: Path | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> Cut:
    """Take layers out of the model, in place, and repair what is left.

    Give one of `remove` (a number of layers or a share as "20%"), `layers` (which ones, 0-based), a `plan`, or
    `max_perplexity_increase` (0.05: as many layers as keep perplexity within 5 %). texts: documents to calibrate on, of
    which `tokens` are read in windows of `window`. judge_texts: documents to judge the result on, of which
    `judge_tokens` are read; without them it is judged on a part of `texts` kept from the repairs. journal: a file that
    keeps what was found about each set of layers tried, from which a run that stops on the way is taken up.

    Options: those of `Options`. select: how layers are chosen: linearity (the paper's), increment, bi, angular, span,
    loss, reverse, random, or kl, which judges sets by their divergence from the dense model after repair; effort
    (one-shot, balanced, thorough) is how many it tries. repair: none, linear, patch, scalar, fold, fold-cosine or
    refit. refit_after: refit the kept layers above the first cut too: nearer on text like the calibration's, farther on
    other text. ridge: towards the old weights. rank: of the maps that linear and patch put in, None for full. protect:
    layers that stay.

    Raises ModelError for layers that cannot go and repairs that the family does not take, TextError for too little
    text, ResultError for a plan of another model.
    """
    started = time.perf_counter()
    _check_one(remove, layers, plan, max_perplexity_increase)
    bench = _bench(model, tokenizer, texts, judge_texts, plan, options, journal, on_progress)
    with evaluating(model):
        made, tried = _decided(bench, remove, layers, plan, max_perplexity_increase)
        result = _carried_out(bench, made)
    facts = {**run_facts(), **(provenance or {}), "seconds": round(time.perf_counter() - started, 3)}
    return Cut(model, tokenizer, replace(result, tried=tuple(tried), provenance=facts))


def plan_for(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Iterable[str],
    remove: int | str | None = None,
    layers: Sequence[int] | None = None,
    max_perplexity_increase: float | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> Plan:
    """Return the plan that `prune_` would make and carry out; the model stays as it is."""
    _check_one(remove, layers, max_perplexity_increase)
    bench = _bench(model, tokenizer, texts, None, None, options, None, on_progress)
    with evaluating(model):
        return _decided(bench, remove, layers, None, max_perplexity_increase)[0]


def _check_one(*wishes: Any) -> None:
    if sum(wish is not None for wish in wishes) != 1:
        raise ModelError("expected one of remove, layers, plan and max_perplexity_increase: what is to go")


def _bench(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    judge_texts: Iterable[str] | None,
    plan: Plan | None,
    options: dict[str, Any],
    journal: Path | None,
    on_progress: OnProgress,
) -> Bench:
    chosen = Options(**options) if plan is None else options_of(plan)
    return Bench(model, tokenizer, texts, chosen, judge_texts=judge_texts, journal=journal, on_progress=on_progress)


def _decided(
    bench: Bench,
    remove: int | str | None,
    layers: Sequence[int] | None,
    plan: Plan | None,
    limit: float | None,
) -> tuple[Plan, list[tuple[tuple[int, ...], float]]]:
    """Return the plan to carry out, and the sets that a selector tried for it."""
    if plan is not None:
        _check_meant_for(plan, bench)
        bench.given(plan.remove)
        bench.ridge = plan.ridge  # raised already, where the text was short
        return plan, []
    if layers is not None:
        return bench.plan(bench.given(layers), given=True), []
    if limit is not None:
        chosen, tried = within(bench, limit)
    else:
        count = bench.number(remove or 0)
        path, tried = bench.path(count)
        chosen = path[count]
    return bench.plan(chosen, given=False), tried


def _carried_out(bench: Bench, plan: Plan) -> PruneResult:
    """Repair, judge and cut the bench's model."""
    bench.release()
    teacher = bench.teacher()
    work = bench.work(teacher, plan.remove)
    student = repaired(work, REPAIRS[plan.repair], after=plan.refit_after)
    losses = judged(bench, work, student, bench.dense(teacher))
    passes = bench.runner.passed / (len(bench.stack) * bench.ids.numel())
    before = parameters(bench.model)
    blocks = {layer: linear_block(fitted, plan.rank) for layer, fitted in work.blocks.items()}
    cut_(bench.model, bench.stack, [i for i in plan.remove if i not in blocks], blocks)
    notes = tuple(bench.notes)
    return PruneResult(plan, *losses, before, parameters(bench.model), round(passes, 3), warnings=notes)


def _check_meant_for(plan: Plan, bench: Bench) -> None:
    """Raise ResultError where the plan was made for another model."""
    if plan.fingerprint not in (bench.fingerprint, earlier_fingerprint(bench.model)):
        raise ResultError(
            f"expected a plan for this model (fingerprint {bench.fingerprint}), got one for {plan.model} "
            f"({plan.fingerprint}): make a plan of its own, or name its layers with --layers"
        )
