"""Carry recipes out: run what is not finished, measure, judge, and put it all together."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rectilinear.errors import RectilinearError
from rectilinear.reproduction.log import RUNS, Log
from rectilinear.reproduction.measures import measured
from rectilinear.reproduction.measures.found import Found
from rectilinear.reproduction.recipe import Recipe
from rectilinear.reproduction.rules import judge
from rectilinear.reproduction.runs import Planned, wanted
from rectilinear.results import Reproduced, ReproductionResult, Row, Run

GOES_ON = {"trace": "trace.json", "finetune": "finetune.json", "pretrain": "recipe.yaml"}  # with --resume, from what


@dataclass(frozen=True)
class Step:
    """A run as it will be: its command, as typed, and whether it is finished already."""

    run: Planned
    command: tuple[str, ...]
    finished: bool

    @property
    def typed(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(["rectilinear", *self.command])


def steps(recipes: Sequence[Recipe], plan: Sequence[Planned], log: Log, stories: str) -> list[Step]:
    """Return the runs that recipes need at the log's scale, each once, in order.

    One that reads the folder of another is not finished before that one is.
    """
    templates = [template for recipe in recipes for template in recipe.runs[log.scale]]
    found: list[Step] = []
    waiting: set[str] = set()
    for run in wanted(plan, templates):
        command = tuple(run.filled(log.folder, plan, stories))
        finished = log.finished(run.name, command) and not waiting & set(command)
        found.append(Step(run, command, finished))
        if not finished:
            waiting.add(str(log.folder / run.name))
    return found


def reproduce(
    recipes: Sequence[Recipe],
    plan: Sequence[Planned],
    log: Log,
    stories: str,
    *,
    call: Callable[[Sequence[str]], None],
    on_step: Callable[[Step, Sequence[Step]], None] = lambda step, left: None,
    before: ReproductionResult | None = None,
    provenance: dict[str, Any] | None = None,
) -> ReproductionResult:
    """Run what recipes need and is not finished, and return what they come to, with the parts of an earlier result.

    call: carries out a command of this package; on_step: is told of each before it runs, with all that are left.
    A run that fails makes the claims of its recipes untestable, with its error as the reason; with one recipe alone it
    is raised. Raises RectilinearError in this case, and ResultError for a folder of a run that is damaged.
    """
    failed: dict[str, str] = {}
    left = [step for step in steps(recipes, plan, log, stories) if not step.finished]
    while left:
        step = left[0]
        on_step(step, left)
        left.pop(0)
        try:
            _run(step, plan, log, failed, call)
        except RectilinearError as error:
            if len(recipes) == 1:
                raise
            failed[step.run.name] = str(error)
    parts = {} if before is None else {part.name: part for part in before.parts}
    for recipe in recipes:
        parts[recipe.name] = _part(recipe, steps([recipe], plan, log, stories), log, failed)
    return ReproductionResult(tuple(parts[name] for name in sorted(parts)), provenance or {})


def _run(
    step: Step, plan: Sequence[Planned], log: Log, failed: dict[str, str], call: Callable[[Sequence[str]], None]
) -> None:
    """Carry one command out; raises RectilinearError where it fails, or where what it needs has failed."""
    broken = [name for name in failed for part in step.command if part == str(log.folder / name)]
    if broken:
        raise RectilinearError(f"it needs {broken[0]}, which failed: {failed[broken[0]]}")
    started = time.perf_counter()
    again = _again(step, log)
    log.start(step.run.name, step.command)
    call([*step.command, *again])
    log.finish(step.run.name, time.perf_counter() - started)


def _again(step: Step, log: Log) -> list[str]:
    """Return the option to go on from what this command has left, or to replace what another one has."""
    folder = log.folder / step.run.name
    if not folder.exists():
        return []
    goes_on = GOES_ON.get(step.command[0])
    same = log.begun(step.run.name, step.command)
    return ["--resume"] if same and goes_on and (folder / goes_on).is_file() else ["--force"]


def _part(recipe: Recipe, needed: Sequence[Step], log: Log, failed: dict[str, str]) -> Reproduced:
    """Measure and judge one recipe from the folders of its runs."""
    own = set(recipe.runs[log.scale])
    folders = [log.folder / step.run.name for step in needed if step.finished and step.run.template in own]
    found = measured(recipe.measure, folders, dict(recipe.options)) if folders else Found({})
    errors = tuple(f"{step.run.name} failed: {failed[step.run.name]}" for step in needed if step.run.name in failed)
    limits = " ".join([recipe.limits.get(log.scale, ""), *errors]).strip()
    labels = {**{name: name for name in found.values}, **recipe.labels}
    return Reproduced(
        name=recipe.name,
        title=recipe.title,
        source=recipe.source,
        verdicts=tuple(judge(claim, found.values, labels, limits) for claim in recipe.claims),
        rows=_rows(recipe, found, labels),
        plots=found.plots,
        xlabel=found.xlabel,
        log=found.log,
        runs=tuple(
            Run(s.run.name, s.typed, f"{RUNS}/{s.run.name}", log.seconds(s.run.name)) for s in needed if s.finished
        ),
        notes=tuple(dict.fromkeys(found.notes)),
    )


def _rows(recipe: Recipe, found: Found, labels: dict[str, str]) -> tuple[Row, ...]:
    """Return the recipe's values in its order, then those of the measure that it does not name."""
    names = dict.fromkeys((*recipe.labels, *found.values))
    rows = (Row(name, labels[name], recipe.published.get(name), found.values.get(name)) for name in names)
    return tuple(row for row in rows if row.paper is not None or row.measured is not None)
