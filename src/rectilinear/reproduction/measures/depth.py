"""Measures of depth: what layers removed, replaced and distilled cost (Figures 6 to 8)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from rectilinear.report.folder import read_document
from rectilinear.report.sweep import DOCUMENT as SWEEP
from rectilinear.reproduction.measures.found import Found, curve, evaluations, loaded, spreads
from rectilinear.results import EvalResult, ModelResult, Plot, PlotCurve, Spread, SweepResult, TaskScore

SAME = 0.01  # dense perplexities that differ by less are of the same text, cut the same way


@dataclass(frozen=True)
class Point:
    """What one model is worth; error: the standard error, 0 where the same tokens judge all models."""

    value: float
    error: float = 0.0


@dataclass
class Curves:
    """Points by kind and number of layers changed; dense: of the model as it was."""

    dense: Point | None = None
    points: dict[str, dict[int, Point]] = field(default_factory=dict)

    def add(self, kind: str, count: int, point: Point) -> None:
        """Add a point, where none is there yet."""
        self.points.setdefault(kind, {}).setdefault(count, point)

    def of(self, kind: str) -> dict[int, Point]:
        """Return the points of a kind, by number of layers."""
        return dict(sorted(self.points.get(kind, {}).items()))


def depth(folders: Sequence[Path], kinds: Mapping[str, str], task: str | None = None) -> Found:
    """Return perplexity, or the accuracy on a task, over the number of layers changed.

    Read are evaluations, in which a model is of a kind where its folder's name ends in "-KIND-NUMBER", and sweeps,
    whose kinds are their repairs. kinds: ways to change layers, from the worst to the best by the paper, and their
    labels. For each kind after the first, `KIND_tried` counts the numbers of layers at which both it and the kind
    before were tried, `KIND_better` those where it is better, and `KIND_worse` those where it is worse, in both cases
    beyond twice the standard error of the difference.
    """
    found, notes = _read(folders, kinds, task)
    if not found.points:
        return Found({})
    values: dict[str, Spread | None] = spreads({"dense": found.dense.value if found.dense else None})
    sign = 1 if task is None else -1  # a perplexity is better where it is lower
    for before, after in pairwise(kinds):
        both = found.of(before).keys() & found.of(after).keys()
        gains = [_clear(found.points[before][count], found.points[after][count], sign) for count in both]
        if both:
            counts = {"tried": len(both), "better": gains.count(1), "worse": gains.count(-1)}
            values |= spreads({f"{after}_{name}": number for name, number in counts.items()})
    for kind, label in kinds.items():
        for count, point in found.of(kind).items():
            values[f"{label}, {count} layer{'' if count == 1 else 's'}"] = Spread(point.value, point.error or None)
    title = "Perplexity" if task is None else f"Accuracy on {task}"
    curves = [_curve(label, found.dense, found.of(kind)) for kind, label in kinds.items() if kind in found.points]
    return Found(values, (Plot(title, tuple(curves), log=task is None),), "layers changed", notes=notes)


def _read(folders: Sequence[Path], kinds: Mapping[str, str], task: str | None) -> tuple[Curves, tuple[str, ...]]:
    """Return all points, and the notes of what they come from."""
    found = Curves()
    notes: list[str] = []
    for result in evaluations(folders):
        notes += result.warnings
        _add_models(found, result, kinds, task)
    for swept in loaded(folders, SWEEP, lambda folder: SweepResult.from_dict(read_document(folder, SWEEP, "prune")[1])):
        notes += swept.warnings
        base = swept.dense.loss.perplexity
        if found.dense is not None and abs(base / found.dense.value - 1) > SAME:
            notes.append(f"The sweep is left out: it judges by another text (dense {base:.4g}).")
            continue
        found.dense = found.dense or Point(base)
        for point in swept.points:
            if point.repair in kinds:
                found.add(point.repair, len(point.remove), Point(point.loss.perplexity))
    return found, tuple(notes)


def _add_models(found: Curves, result: EvalResult, kinds: Mapping[str, str], task: str | None) -> None:
    for model in result.rows:
        point = _point(model, task)
        named = re.fullmatch(r".*-(\w+)-(\d+)", Path(model.name).name)
        if point is not None and named and named[1] in kinds:
            found.add(named[1], int(named[2]), point)
        elif found.dense is None:
            found.dense = point


def _point(model: ModelResult, task: str | None) -> Point | None:
    if task is None:
        return None if model.text is None else Point(model.text.perplexity)
    return next((Point(score.value, score.stderr or 0.0) for score in _accuracies(model, task)), None)


def _accuracies(model: ModelResult, task: str) -> Iterator[TaskScore]:
    return (score for score in model.tasks or () if score.task == task and score.metric.partition(",")[0] == "acc")


def _clear(before: Point, after: Point, sign: int) -> int:
    """Return 1 where the second is better than the first, -1 where it is worse, 0 where errors do not tell."""
    gain = sign * (before.value - after.value)
    if abs(gain) <= 2 * (before.error**2 + after.error**2) ** 0.5:
        return 0
    return 1 if gain > 0 else -1


def _curve(label: str, dense: Point | None, points: Mapping[int, Point]) -> PlotCurve:
    known = {**({} if dense is None else {0: dense}), **points}
    return curve(label, known, [point.value for point in known.values()])
