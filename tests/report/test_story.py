"""The sentences that a page begins with say what the numbers say, whatever those are."""

from dataclasses import replace

import pytest

from rectilinear.report.story import compared, finding, least_linear, notes, share
from rectilinear.results import Score


def told(result):
    return [f"{note.before}{'' if note.layer is None else f'layer {note.layer}'}{note.after}" for note in notes(result)]


def scored(result, score, increment):
    """Give every layer the same scores, each (paper, heldout, ordinary)."""

    def of(values):
        return Score(values[0], values[1], None, None, values[2], None, None)

    layers = (replace(layer, score=of(score), increment=of(increment)) for layer in result.layers)
    return replace(result, layers=tuple(layers))


def test_the_strictest_score_leads_and_the_difference_is_taken_apart(make_scan):
    result = scored(make_scan(4), (0.98, 0.97, 0.93), (0.7, 0.6, 0.55))
    assert finding(result) == (
        "Linear maps explain 93 % of what the layers put out on unseen text, but only 55 % of what the layers add to "
        "the stream."
    )
    assert told(result)[0] == (
        "By the published formula it is 98.0 % and 70.0 %: its score is 1.0 points higher for judging on the text it "
        "was fitted on, and 4.0 points higher for counting sink tokens."
    )
    worse = scored(make_scan(4), (0.95, 0.97, 0.99), (0.7, 0.6, 0.98))
    assert "and 98 % of what the layers add" in finding(worse)  # no contrast where there is none
    assert "2.0 points lower for judging" in told(worse)[0]


def test_in_sample_scores_are_called_that(make_scan):
    result = make_scan(4, heldout=False)
    assert "on the text they were fitted on" in finding(result)
    assert not any("published formula" in note or "worst" in note for note in told(result))


def test_scores_in_words_are_never_rounded_up_to_all():
    assert [share(v) for v in (-0.4, 0.0, 0.0042, 0.554, 0.994, 0.99999, 1.0)] == [
        "nothing",
        "nothing",
        "0.42 %",
        "55 %",
        "99.40 %",
        "99.99 %",
        "all",
    ]


def test_layers_are_named_where_they_stand_out(make_scan):
    said = told(make_scan(12))
    assert any("Sinks weigh most in layer 2: 0.33 % of the tokens carry 98.1 %" in note for note in said)
    assert any("Least linear in what it adds is layer 3: -1.72" in note for note in said)
    assert least_linear(make_scan(12)) == 3
    assert not any("Least linear" in note for note in told(make_scan(1)))
    without = make_scan(2)
    assert any("No token is a sink" in note for note in told(without))


@pytest.mark.parametrize("heldout", [True, False])
def test_nothing_to_score_is_said_too(make_scan, heldout):
    blank = scored(make_scan(3, heldout=heldout), (None, None, None), (None, None, None))
    assert finding(blank) == "Nothing varies in this stream: there is no score."
    assert told(blank)
    assert least_linear(blank) == 0
    assert "nothing to compare" in compared([blank, blank], ["a", "b"])


def test_models_are_ranked(make_scan):
    low = scored(make_scan(3), (0.9, 0.9, 0.9), (0.6, 0.4, 0.3))
    high = scored(make_scan(3, heldout=False), (0.9, None, None), (0.7, None, None))
    assert compared([low, high], ["low", "high <b>"]) == (
        "Linear maps explain 70 % of what the layers add to the stream in high <b> (in-sample), 40 % in low."
    )
