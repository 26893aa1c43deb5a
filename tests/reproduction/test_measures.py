"""Measures on results made up: what they count, both ways, and that folders of other kinds do not disturb them."""

import json

import pytest

from rectilinear.errors import ResultError
from rectilinear.reproduction.measures import MEASURES, measured
from rectilinear.reproduction.measures.found import correlation
from rectilinear.reproduction.recipe import load
from rectilinear.reproduction.rules import judge
from rectilinear.results import (
    FAILS,
    HOLDS,
    UNTESTABLE,
    Change,
    Changes,
    DeltaResult,
    EvalResult,
    FinetuneResult,
    LayerDelta,
    LayerScores,
    Loss,
    ModelResult,
    Point,
    ProbeCurve,
    ProbePoint,
    ProbeResult,
    Protocol,
    Score,
    SeedResult,
    Size,
    SweepResult,
    TaskScore,
    TextScore,
    TracePoint,
    TraceResult,
)

KINDS = {"none": "removed", "linear": "replaced", "maps": "distilled"}
PROTOCOL = Protocol("joined", 512, 512, 1, None, False, 100, 100, None, "joined")


def keep(folder, name, result):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(result if isinstance(result, str) else result.to_json())
    return folder


def verdicts(part, found):
    recipe = load(part)
    return [judge(claim, found.values, recipe.labels).verdict for claim in recipe.claims]


def model(name, perplexity=None, accuracy=None, stderr=0.01, task="arc_easy"):
    text = None if perplexity is None else TextScore(PROTOCOL, 1.0, perplexity, None, None, None, 0.5)
    score = TaskScore(task, "acc,none", accuracy or 0.0, stderr, 100, "1", "0", "local", True)
    return ModelResult(name, {}, Size(3, 10, 40), text=text, tasks=None if accuracy is None else (score,))


def evaluated(folder, *models):
    return keep(folder, "eval.json", EvalResult({}, models))


def swept(folder, dense, **curves):
    points = tuple(
        Point("linearity", repair, tuple(range(count)), Loss(value, 0.1), value / dense, 10, 1.0)
        for repair, values in curves.items()
        for count, value in enumerate(values, 1)
    )
    return keep(folder, "sweep.json", SweepResult({}, 6, Point("dense", "none", (), Loss(dense, 0), 1, 10, 1), points))


def values(found):
    return {name: None if spread is None else spread.mean for name, spread in found.values.items()}


@pytest.mark.parametrize("name", MEASURES)
def test_nothing_is_found_in_folders_of_other_kinds(tmp_path, name):
    options = {"depth": {"kinds": KINDS}, "tasks": {"metrics": {}}}.get(name, {})
    assert not measured(name, [keep(tmp_path / "other", "other.json", "{}")], options).values


def test_depth_puts_models_and_a_sweep_together(tmp_path):
    folders = [
        evaluated(tmp_path / "e", model("demo", 20.0), model("runs/cut-none-2", 30.0), model("runs/cut-maps-2", 24.0)),
        swept(tmp_path / "s", 20.1, none=[25.0, 31.0], linear=[24.0, 26.0]),
    ]
    found = measured("depth", folders, {"kinds": KINDS})
    counts = {name: value for name, value in values(found).items() if "_" in name or name == "dense"}
    linear = {"linear_tried": 2, "linear_better": 2, "linear_worse": 0}
    assert counts == {"dense": 20.0, **linear, "maps_tried": 1, "maps_better": 1, "maps_worse": 0}
    assert values(found)["removed, 2 layers"] == 30.0  # of the evaluation, which comes first
    [plot] = found.plots
    removed = plot.curves[0]
    assert (removed.label, removed.x, removed.y) == ("removed", (0, 1, 2), (20.0, 25.0, 30.0))
    assert verdicts("fig6", found) == [HOLDS, HOLDS]


def test_depth_says_where_the_paper_is_wrong(tmp_path):
    found = measured("depth", [swept(tmp_path, 20.0, none=[25.0, 31.0], linear=[24.0, 33.0])], {"kinds": KINDS})
    assert verdicts("fig6", found) == [FAILS, UNTESTABLE]


def test_a_sweep_of_another_text_is_left_out(tmp_path):
    folders = [
        evaluated(tmp_path / "e", model("demo", 20.0), model("a-none-1", 30.0)),
        swept(tmp_path, 40.0, none=[50]),
    ]
    found = measured("depth", folders, {"kinds": KINDS})
    assert "another text" in found.notes[0] and values(found)["removed, 1 layer"] == 30.0


@pytest.mark.parametrize(
    ("replaced", "expected"), [(0.5, HOLDS), (0.41, UNTESTABLE), (0.39, UNTESTABLE), (0.2, UNTESTABLE)]
)
def test_accuracies_count_beyond_their_errors(tmp_path, replaced, expected):
    models = (model("demo", accuracy=0.6), model("a-none-4", accuracy=0.4), model("a-linear-4", accuracy=replaced))
    found = measured("depth", [evaluated(tmp_path, *models)], {"kinds": KINDS, "task": "arc_easy"})
    assert verdicts("fig8", found)[0] == expected
    assert values(found)["linear_worse"] == (replaced == 0.2)


def change(before, after):
    return Change(before, after, after - before, after - before - 0.01, after - before + 0.01)


def changes(before, after):
    return Changes(*[change(before, after)] * 3)


@pytest.mark.parametrize(
    ("after", "expected"), [((0.4, 0.5), [HOLDS, HOLDS]), ((0.4, 0.7), [HOLDS, FAILS]), ((0.7, 0.8), [FAILS, FAILS])]
)
def test_a_penalty_lowers_every_layer_or_not(tmp_path, after, expected):
    layers = tuple(LayerDelta(i, changes(0.9, 0.9), changes(0.6, value)) for i, value in enumerate(after))
    mean = {name: changes(0.6, sum(after) / 2) for name in ("score", "increment")}
    result = DeltaResult({"model": "plain"}, {"model": "cosine"}, {}, layers, mean)
    found = measured("regularised", [keep(tmp_path, "delta.json", result)], {})
    assert verdicts("fig4", found) == expected
    assert [c.label for c in found.plots[0].curves[::2]] == ["plain, paper's formula", "cosine, paper's formula"]


def trace_of(*scores, steps=(0, 1, 10, 100, 1000)):
    def point(step, value):
        score = Score(value, value, None, None, value, None, None)
        layers = (LayerScores(0, score, score, 0.1, 0.9, 0),)
        return TracePoint(step, f"step-{step}", None, "0", "2026-01-01T00:00:00+00:00", score, score, 0.1, 0.9, layers)

    return TraceResult({"model": "m", "steps": list(steps)}, tuple(map(point, steps, scores)))


@pytest.mark.parametrize(
    ("scores", "expected"), [((0.1, 0.9, 0.8, 0.7, 0.6), HOLDS), ((0.99, 0.5, 0.6, 0.7, 0.8), FAILS)]
)
def test_a_score_falls_in_training_or_not(tmp_path, scores, expected):
    found = measured("checkpoints", [keep(tmp_path, "trace.json", trace_of(*scores))], {})
    assert verdicts("fig2", found) == [expected, UNTESTABLE]
    assert found.plots[0].curves[0].x == (1, 10, 100, 1000)  # weights drawn by chance are no training


@pytest.mark.parametrize(
    ("low", "readable", "expected"), [(0.01, 0.6, HOLDS), (-0.01, 0.6, FAILS), (0.01, 0.4, UNTESTABLE)]
)
def test_probes_are_better_or_not(tmp_path, low, readable, expected):
    points = (ProbePoint(0, 0.55, 0.45, 0.65, 0.6, 1.0), ProbePoint(1, 0.65, readable, 0.7, 0.7, 1.0))
    curves = (ProbeCurve("plain", {}, points), ProbeCurve("cosine", {}, points, 0, 0.02, low, 0.05))
    result = ProbeResult({"name": "rte", "test": 100, "labels": ["no", "yes"]}, 0.5, curves)
    found = measured("probes", [keep(tmp_path, "probe.json", result)], {})
    assert verdicts("fig5", found) == [expected]


def tuned(*deltas, accuracy=0.8, task="cb"):
    whole = Change(0.5, 0.6, 0.1)
    seeds = []
    for seed, delta in enumerate(deltas):
        parts = Changes(Change(0.5, 0.5 + delta, delta), whole, whole)
        result = DeltaResult({}, {}, {}, (LayerDelta(0, parts, parts),), {"score": parts, "increment": parts})
        seeds.append(SeedResult(seed, 0.5, accuracy, (), result))
    told = {"name": task, "majority": 0.6}
    return FinetuneResult(told, {}, 1, 1, tuple(seeds), {"model": "facebook/opt-125m"})


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [((0.1, 0.11), [HOLDS, HOLDS]), ((-0.1, -0.11), [FAILS, FAILS]), ((0.1, -0.05), [HOLDS, UNTESTABLE])],
)
def test_fine_tuning_raises_the_score_or_not(tmp_path, deltas, expected):
    found = measured("finetuned", [keep(tmp_path, "finetune.json", tuned(*deltas))], {})
    assert verdicts("table1", found) == expected
    cell = found.values["opt-125m, CB"]
    assert cell.mean == pytest.approx(sum(deltas) / 2) and cell.std > 0
    assert load("table1").published["opt-125m, CB"].mean == 0.048
    assert values(found)["learnt"] == 1


@pytest.mark.parametrize(("second", "expected"), [(0.8, HOLDS), (0.2, FAILS), (0.51, UNTESTABLE)])
def test_tasks_differ_beyond_their_errors_or_not(tmp_path, second, expected):
    models = (model("a/650m-plain", accuracy=0.5, task="copa"), model("a/650m-cosine", accuracy=second, task="copa"))
    found = measured("tasks", [evaluated(tmp_path, *models)], {"metrics": {"copa acc": "copa"}})
    assert verdicts("table2", found) == [expected]
    assert values(found)["650m-cosine, copa"] == values(found)["650m-cosine, mean"] == 100 * second


@pytest.mark.parametrize(("second", "expected"), [((6.0, 7.0), HOLDS), ((5.0, 7.0), FAILS)])
def test_grades_are_better_or_not(tmp_path, second, expected):
    folders = []
    for name, (low, high) in {"plain": (4.0, 5.5), "cosine": second}.items():
        mean = {"mean": (low + high) / 2, "low": low, "high": high}
        document = {"provenance": {"model": f"runs/650m-{name}"}, "means": {"mean": mean, "plot": mean}}
        folders.append(keep(tmp_path / name, "judge.json", json.dumps(document)))
    found = measured("grades", folders, {})
    assert verdicts("table3", found) == [expected]
    assert values(found)["650m-plain, plot"] == 4.75


def test_a_model_that_learnt_nothing_tells_nothing(tmp_path):
    found = measured("finetuned", [keep(tmp_path, "finetune.json", tuned(-0.1, -0.11, accuracy=0.6))], {})
    assert verdicts("table1", found) == [UNTESTABLE, UNTESTABLE]


def test_a_damaged_folder_is_named(tmp_path):
    with pytest.raises(ResultError, match=r"cannot read .*trace\.json"):
        measured("checkpoints", [keep(tmp_path, "trace.json", "{")], {})


def test_rank_correlation():
    assert correlation([1.0, 2.0, 10.0]) == pytest.approx(1)
    assert correlation([3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert correlation([1.0, 2.0, 2.0, 1.0]) == pytest.approx(0)
    assert correlation([1.0, 1.0, 1.0]) is None and correlation([1.0, 2.0]) is None
