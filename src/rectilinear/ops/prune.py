"""Prune: from a dense model to a smaller one, by a plan that is made here or given."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError, ResultError
from rectilinear.models.save import save_model
from rectilinear.models.surgery import cut_
from rectilinear.ops.cut.bench import Bench, OnProgress, Options, evaluating, options_of
from rectilinear.ops.cut.registry import REPAIRS
from rectilinear.ops.cut.repairs import repaired
from rectilinear.ops.provenance import run_facts
from rectilinear.results import Loss, Plan, PruneResult

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


def prune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Iterable[str],
    remove: int | str | None = None,
    layers: Sequence[int] | None = None,
    plan: Plan | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> Cut:
    """Return a copy of the model with fewer layers, repaired; the model given stays as it is.

    Give one of `remove` (a number of layers or a share as "20%"), `layers` (which ones, 0-based), or a `plan`. texts:
    documents to calibrate on, of which `tokens` are read in windows of `window`.

    select: how layers are chosen: linearity (the paper's), increment, bi, angular, loss, reverse, random, or kl, which
    judges sets by their divergence from the dense model after repair; effort (one-shot, balanced, thorough) is how many
    it tries. repair: none, linear, patch, scalar, fold, fold-cosine or refit. refit_after: refit the kept layers above
    the first cut too; None: where there are tokens enough. ridge: towards the old weights. protect: layers that stay.

    Raises ModelError for layers that cannot go and repairs that the family does not take, TextError for too little
    text, ResultError for a plan of another model.
    """
    return prune_(
        copy.deepcopy(model),
        tokenizer,
        texts=texts,
        remove=remove,
        layers=layers,
        plan=plan,
        provenance=provenance,
        on_progress=on_progress,
        **options,
    )


def prune_(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Iterable[str],
    remove: int | str | None = None,
    layers: Sequence[int] | None = None,
    plan: Plan | None = None,
    provenance: dict[str, Any] | None = None,
    on_progress: OnProgress = None,
    **options: Any,
) -> Cut:
    """Do as `prune` does, to the model itself: half the memory."""
    started = time.perf_counter()
    if sum(given is not None for given in (remove, layers, plan)) != 1:
        raise ModelError("expected one of remove, layers and plan: how many layers to remove, which, or as planned")
    bench = Bench(model, tokenizer, texts, Options(**options) if plan is None else options_of(plan), on_progress)
    tried: list[tuple[tuple[int, ...], float]] = []
    with evaluating(model):
        if remove is not None:
            count = bench.number(remove)
            path, tried = bench.path(count)
            chosen = path[count]
        else:
            chosen = bench.given(_planned(plan, bench) if plan is not None else layers or ())
        result = _carried_out(bench, chosen, plan or bench.plan(chosen, given=remove is None))
    facts = {**run_facts(), **(provenance or {}), "seconds": round(time.perf_counter() - started, 3)}
    return Cut(model, tokenizer, replace(result, tried=tuple(tried), provenance=facts))


def _carried_out(bench: Bench, removed: tuple[int, ...], plan: Plan) -> PruneResult:
    """Repair, judge and cut the bench's model."""
    teacher = bench.teacher()
    work = bench.work(teacher, removed)
    student = repaired(work, REPAIRS[plan.repair], after=plan.refit_after)
    judge = bench.judge(teacher)
    last = teacher.at(len(bench.stack))
    dense = Loss(math.exp(judge.nats(last)), 0.0)
    cut = Loss(math.exp(judge.nats(student)), judge.divergence(student))
    passes = bench.runner.passed / (len(bench.stack) * bench.ids.numel())
    before = _parameters(bench.model)
    cut_(bench.model, bench.stack, [i for i in removed if i not in work.blocks], work.blocks)
    return PruneResult(
        plan, dense, cut, before, _parameters(bench.model), round(passes, 3), warnings=tuple(bench.notes)
    )


def _planned(plan: Plan, bench: Bench) -> tuple[int, ...]:
    """Return the layers of a plan; raises ResultError where it was made for another model."""
    if plan.fingerprint != bench.fingerprint:
        raise ResultError(
            f"expected a plan for this model (fingerprint {bench.fingerprint}), got one for {plan.model} "
            f"({plan.fingerprint}): make a plan of its own, or name its layers with --layers"
        )
    return plan.remove


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
