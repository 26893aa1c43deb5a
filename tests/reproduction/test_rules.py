import pytest

from rectilinear.reproduction.rules import Claim, Condition, judge
from rectilinear.results import FAILS, HOLDS, UNTESTABLE, Spread

LABELS = {"score": "mean score", "least": "lowest score", "models": "number of models"}


def claim(*holds, needs=()):
    return Claim("It is so.", tuple(map(Condition.parse, holds)), tuple(map(Condition.parse, needs)))


def values(**numbers):
    return {name: None if number is None else Spread(number) for name, number in numbers.items()}


@pytest.mark.parametrize(
    ("rule", "score", "verdict"),
    [
        ("score >= 0.9", 0.9, HOLDS),
        ("score >= 0.9", 0.8999, FAILS),
        ("score > 0.9", 0.9, FAILS),
        ("score <= 0.9", 0.9, HOLDS),
        ("score < 0.9", 0.9, FAILS),
        ("score == least", 0.5, HOLDS),
        ("score == least", 0.6, FAILS),
        ("least < score", 0.6, HOLDS),
    ],
)
def test_a_rule_goes_both_ways(rule, score, verdict):
    found = judge(claim(rule), values(score=score, least=0.5), LABELS)
    assert found.verdict == verdict
    assert found.rules == (Condition.parse(rule).words(LABELS),)


def test_the_reason_gives_the_numbers_of_what_fails():
    found = judge(claim("score >= 0.98", "least >= 0.9"), values(score=0.979, least=0.95), LABELS)
    assert (found.verdict, found.reason) == (FAILS, "Mean score: 0.979, asked for at least 0.98.")
    both = judge(claim("score > least"), values(score=0.979, least=0.95), LABELS)
    assert both.reason == "Mean score: 0.979, asked for above 0.95 (lowest score)."


def test_what_was_not_measured_is_not_testable():
    for known in ({}, values(score=None)):
        found = judge(claim("score >= 0.9"), known, LABELS, "Because.")
        assert (found.verdict, found.reason) == (UNTESTABLE, "Not measured: mean score. Because.")


def test_a_need_that_is_not_met_is_not_testable():
    one = claim("score >= 0.9", needs=["models >= 5"])
    few = judge(one, values(score=0.1, models=2), LABELS, "Too few.")
    assert (few.verdict, few.reason) == (UNTESTABLE, "Number of models: 2, asked for at least 5. Too few.")
    assert judge(one, values(score=0.1, models=5), LABELS).verdict == FAILS


@pytest.mark.parametrize("text", ["score about 0.9", "score >= 0.9 or so", "score"])
def test_a_rule_that_is_none_is_refused(text):
    with pytest.raises(ValueError):
        Condition.parse(text)
