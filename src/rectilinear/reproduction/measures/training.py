"""Measures of training: along checkpoints (Figure 2), with a penalty (Figure 4), fine-tuned (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rectilinear.report.delta import DOCUMENT as DELTA
from rectilinear.report.delta import load_delta
from rectilinear.report.finetuning import DOCUMENT as FINETUNE
from rectilinear.report.finetuning import load_finetune
from rectilinear.report.plots import judged
from rectilinear.report.trace import DOCUMENT as TRACE
from rectilinear.report.trace import load_trace
from rectilinear.reproduction.measures.found import Found, correlation, curve, loaded, spreads
from rectilinear.results import FinetuneResult, Plot, Spread, TraceResult

TASKS = {"multirc": "MultiRC", "boolq": "BoolQ", "cb": "CB", "reward": "reward modelling"}  # as in Table 1


def checkpoints(folders: Sequence[Path]) -> Found:
    """Return the mean increment score along training; step 0, of random weights, is left out.

    falling: models that end below the highest point and whose score is, by rank, the lower the later.
    """
    traces = loaded(folders, TRACE, load_trace)
    found = [trace for trace in traces if len(_scores(trace, "paper")) > 2]
    if not found:
        return Found({})
    values: dict[str, float | None] = {
        "models": len(found),
        "checkpoints": min(len(_scores(trace, "paper")) for trace in found),
        "falling": sum(_falls(_scores(trace, "paper")) for trace in found),
        "falling_unseen": sum(_falls(_scores(trace, "unseen")) for trace in found),
    }
    for kind in ("paper", "unseen"):
        scores = _scores(found[0], kind)
        values |= {f"first_{kind}": scores[0], f"last_{kind}": scores[-1], f"trend_{kind}": correlation(scores)}
    curves = [
        curve(f"{trace.provenance['model']}, {says}", _steps(trace), _scores(trace, kind), dashed=kind == "unseen")
        for trace in found
        for kind, says in (("paper", "paper's formula"), ("unseen", "unseen text"))
    ]
    plots = (Plot("Mean increment score", tuple(curves)),)
    return Found(spreads(values), plots, "training step, logarithmic", log=True)


def _steps(trace: TraceResult) -> list[int]:
    return [point.step for point in trace.points if point.step]


def _scores(trace: TraceResult, kind: str) -> list[float]:
    points = [point.increment for point in trace.points if point.step]
    scores = [point.paper if kind == "paper" else judged(point) for point in points]
    return [score for score in scores if score is not None]


def _falls(scores: Sequence[float]) -> bool:
    trend = correlation(scores)
    return trend is not None and trend < 0 and scores[-1] < scores[0]


def regularised(folders: Sequence[Path]) -> Found:
    """Return the increment scores of a model without and with the penalty, layer by layer."""
    deltas = loaded(folders, DELTA, load_delta)
    if not deltas:
        return Found({})
    result = deltas[0]
    changes = {kind: [getattr(layer.increment, kind) for layer in result.layers] for kind in ("paper", "heldout")}
    whole = result.mean["increment"]
    values = {
        "layers": len(result.layers),
        "lower": sum(c.delta is not None and c.delta < 0 for c in changes["paper"]),
        "lower_unseen": sum(c.high is not None and c.high < 0 for c in changes["heldout"]),
        "plain": whole.paper.before,
        "penalised": whole.paper.after,
        "change": whole.paper.delta,
        "change_unseen": whole.heldout.delta,
        "change_unseen_most": whole.heldout.high,
    }
    layers = [layer.layer for layer in result.layers]
    sides = (("before", result.before["model"]), ("after", result.after["model"]))
    curves = [
        curve(f"{name}, {says}", layers, [getattr(c, side) for c in changes[kind]], dashed=kind == "heldout")
        for side, name in sides
        for kind, says in (("paper", "paper's formula"), ("heldout", "unseen text"))
    ]
    plots = (Plot("Increment score", tuple(curves)),)
    return Found(spreads(values), plots, "layer", notes=result.warnings)


def finetuned(folders: Sequence[Path]) -> Found:
    """Return the change of the increment score, by the paper's formula, for every model and task."""
    results = loaded(folders, FINETUNE, load_finetune)
    cells = {_cell(result): result.change("increment", "paper") for result in results}
    known = [cell.mean for cell in cells.values() if cell.mean is not None]
    if not known:
        return Found({})
    # Seeds tell chance from change: twice the standard error of their mean.
    clear = [_clear(cell, len(result.seeds)) for cell, result in zip(cells.values(), results, strict=True)]
    values: dict[str, Spread | None] = spreads(
        {
            "cells": len(known),
            "positive": sum(delta > 0 for delta in known),
            "clear": sum(sign != 0 for sign in clear),
            "clear_negative": sum(sign < 0 for sign in clear),
            "learnt": sum(_learnt(result) for result in results),
        }
    )
    notes = tuple(f"{_cell(result)}: {note}" for result in results for note in result.warnings)
    return Found({**values, **cells}, notes=notes)


def _cell(result: FinetuneResult) -> str:
    model, task = str(result.provenance.get("model")), str(result.task["name"])
    return f"{model.rpartition('/')[2]}, {TASKS.get(task.lower(), task)}"


def _clear(cell: Spread, seeds: int) -> int:
    """Return the sign of a mean that is more than two standard errors away from 0, else 0."""
    if cell.mean is None or cell.std is None or abs(cell.mean) <= 2 * cell.std / seeds**0.5:
        return 0
    return 1 if cell.mean > 0 else -1


def _learnt(result: FinetuneResult) -> bool:
    """Tell whether the model came to be better than the more frequent class, or, of pairs, than a coin."""
    after = result.after.mean
    return after is not None and after > (result.task.get("majority") or 0.5)
