"""Measures of models side by side: probes (Figure 5), benchmark tasks (Table 2), grades (Table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rectilinear.errors import ResultError
from rectilinear.report.folder import read_document
from rectilinear.report.judging import DOCUMENT as JUDGE
from rectilinear.report.probe import DOCUMENT as PROBE
from rectilinear.report.probe import load_probe
from rectilinear.reproduction.measures.found import Found, curve, evaluations, loaded, spreads
from rectilinear.results import ModelResult, Plot, ProbeCurve, Spread, TaskScore, mean
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.judging import Mean


def probes(folders: Sequence[Path]) -> Found:
    """Return the accuracy of probes along the stream, of a model without and one with the penalty."""
    results = [result for result in loaded(folders, PROBE, load_probe) if len(result.curves) > 1]
    if not results:
        return Found({})
    result = results[0]
    plain, penalised = result.curves[:2]
    values = {
        "test": result.task["test"],
        "majority": result.majority,
        "plain": plain.mean,
        "penalised": penalised.mean,
        "plain_best": plain.best.accuracy,
        "penalised_best": penalised.best.accuracy,
        "readable": sum(_reads(each, result.majority) for each in (plain, penalised)),
        "gap": penalised.gap,
        "gap_least": penalised.gap_low,
    }
    usual = curve("more frequent class", (0, len(plain.points) - 1), [result.majority] * 2, dashed=True)
    curves = [curve(c.name, [p.position for p in c.points], [p.accuracy for p in c.points]) for c in (plain, penalised)]
    title = f"Accuracy of linear probes on {result.task['name']}"
    plots = (Plot(title, (*curves, usual)),)
    return Found(spreads(values), plots, "position of the stream (0: embedding)", notes=result.warnings)


def _reads(found: ProbeCurve, majority: float) -> bool:
    """Tell whether some position is better than the more frequent class and than a coin, beyond its interval."""
    return any(point.low is not None and point.low > max(majority, 0.5) for point in found.points)


def tasks(folders: Sequence[Path], metrics: Mapping[str, str]) -> Found:
    """Return scores in per cent and their means, of the model without (the first) and those with a penalty.

    metrics: by the harness's "TASK METRIC", the columns of the table. gap: of the mean of the second model over the
    first, with its standard error, tasks taken as independent.
    """
    models = [model for result in evaluations(folders) for model in result.rows if model.tasks]
    values: dict[str, Spread | None] = {}
    for model in models:
        values |= {f"{_name(model)}, {column}": cell for column, cell in _cells(model, metrics).items()}
    if len(models) < 2:
        return Found(values)
    plain, penalised = (_cells(model, metrics) for model in models[:2])
    both = [column for column in plain if column in penalised and column != "mean"]
    gaps = [_of(penalised[column]) - _of(plain[column]) for column in both]
    errors = [(penalised[column].std or 0) ** 2 + (plain[column].std or 0) ** 2 for column in both]
    gap, error = mean(gaps) or 0.0, sum(errors) ** 0.5 / max(len(both), 1)
    values |= {"gap": Spread(gap, error), "gap_in_errors": Spread(abs(gap) / error if error else None)}
    return Found({"models": Spread(len(models)), "columns": Spread(len(both)), **values})


def _cells(model: ModelResult, metrics: Mapping[str, str]) -> dict[str, Spread]:
    scores = {f"{score.task} {score.metric.partition(',')[0]}": score for score in model.tasks or ()}
    cells = {column: _percent(scores[name]) for name, column in metrics.items() if name in scores}
    return cells | ({"mean": Spread(mean(cell.mean for cell in cells.values()))} if cells else {})


def _percent(score: TaskScore) -> Spread:
    return Spread(100 * score.value, None if score.stderr is None else 100 * score.stderr)


def _of(cell: Spread) -> float:
    return cell.mean or 0.0


def _name(model: ModelResult) -> str:
    return model.name.rstrip("/").rpartition("/")[2]


def grades(folders: Sequence[Path]) -> Found:
    """Return mean grades of completions, of the model without (the first) and one with the penalty."""
    judged = loaded(folders, JUDGE, _judged)
    values: dict[str, Spread | None] = {}
    for name, means in judged:
        values |= {f"{name}, {grade}": Spread(found.mean) for grade, found in means.items()}
    if len(judged) > 1:
        plain, penalised = (means["mean"] for _, means in judged[:2])
        values |= spreads({"plain_most": plain.high, "penalised_least": penalised.low})
    return Found(values)


def _judged(folder: Path) -> tuple[str, dict[str, Mean]]:
    """Return the name of a judged model and its grades; raises ResultError where they are damaged."""
    file, document = read_document(folder, JUDGE, "judge")
    try:
        name = str(document["provenance"].get("model")).rstrip("/").rpartition("/")[2]
        means = {grade: checked(Mean(**found)) for grade, found in document["means"].items()}
        return name, means | {"mean": means["mean"]}
    except DAMAGED as error:
        raise ResultError(f"cannot read {file}: {error!r}; judge again") from error
