import json

from rich.console import Console

from rectilinear.report.healing import heal_table
from rectilinear.results import HealPoint, HealResult, Loss, Plan, thinned

PLAN = Plan((1, 2), 6, "kl", "refit", False, 0.1, "model", "0" * 16, {})


def result(points=1000, before=50.0):
    history = tuple(HealPoint(i + 1, 64 * (i + 1), i / 10, 2.0 - i / 1000) for i in range(points))
    losses = (Loss(30.0, 0.0), Loss(before, 0.5), Loss(40.0, 0.25))
    return HealResult(PLAN, {"loss": "kl", "train": "all"}, 10, 100, *losses, 500, history, {}, ("a [note]",))


def test_long_histories_are_thinned_by_means():
    points = result().history
    few = thinned(points)
    assert len(few) == 200 and few[-1].step == 1000 and few[0].step == 5
    assert few[0].loss == sum(p.loss for p in points[:5]) / 5
    assert thinned(points[:7]) == points[:7]


def test_what_was_recovered():
    assert result().recovered == 0.5
    assert result(before=29.0).recovered is None
    document = json.loads(result(before=29.0).to_json())
    assert document["recovered"] is None and document["spent"] == {"steps": 1000, "tokens": 64000, "seconds": 99.9}
    empty = result(0)
    assert (empty.steps, empty.tokens, empty.seconds) == (0, 0, 0.0)


def test_the_table_says_it_in_words():
    console = Console(width=100, record=True, force_terminal=False)
    for shown in (result(), result(0), result(1, before=29.0)):
        console.print(heal_table(shown))
    said = console.export_text()
    assert "by kl, training all: loss 2.0000 " in said and "without layers 1 to 2, two layers" in said
    assert "x dense" in said and "1.333" in said and "of the excess over the dense model 50.0 % is gone" in said
    assert "10.0 % of the model's" in said and "! a [note]" in said
