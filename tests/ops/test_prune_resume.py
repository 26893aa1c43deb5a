"""A search for layers that was stopped: what it had tried is not tried again, and what comes out is the same."""

import json
import random

import pytest

import rectilinear
import tiny
from rectilinear.errors import ResultError
from rectilinear.ops.cut.selectors import Search

DOCUMENTS = tiny.documents(count=60)
KILLS = 50


class Stop(Exception):
    """In the place of a kill: what is in the file at that moment is what the next run finds."""


@pytest.fixture(scope="module")
def model():
    return tiny.llama(num_hidden_layers=6)


def prune(model, journal, *, seed=0, **options):
    return rectilinear.prune(model, tiny.tokenizer(), texts=DOCUMENTS, window=32, journal=journal, seed=seed, **options)


def figures(cut):
    found = json.loads(cut.result.to_json())
    weights = {name: tensor.tolist() for name, tensor in cut.model.state_dict().items()}
    return {**found, "provenance": None}, weights


@pytest.fixture
def tried(monkeypatch):
    """The sets that were really tried, and after how many of them to stop."""
    sets, limit, really = [], [None], Search._really

    def counted(search, *arguments, **options):
        if len(sets) == limit[0]:
            raise Stop
        sets.append(arguments[0])
        return really(search, *arguments, **options)

    monkeypatch.setattr(Search, "_really", counted)
    return sets, limit


@pytest.mark.parametrize("select", ["kl", "loss"])
def test_a_search_goes_on_wherever_its_file_was_cut(model, tried, tmp_path, select):
    """Each run is stopped after a few sets, and the file then loses some of its end, in the middle of a line too."""
    journal, moments = tmp_path / "kept.jsonl", random.Random(0)
    whole, (sets, limit) = figures(prune(model, None, remove=3, select=select)), tried
    every = len(sets)
    for _ in range(KILLS):
        sets.clear()
        limit[0] = moments.randint(0, 3)
        try:
            assert figures(prune(model, journal, remove=3, select=select))[1] == whole[1]
            journal.unlink(missing_ok=True)
        except Stop:
            if journal.exists():
                journal.write_bytes(journal.read_bytes()[: -moments.choice([1, 1, 1, 20, 150])])
    sets.clear()
    limit[0] = None
    before = journal.read_bytes().count(b"\n") - 1
    assert 0 < before < every
    found = figures(prune(model, journal, remove=3, select=select))
    assert len(sets) == every - before
    assert {**found[0], "passes": None} == {**whole[0], "passes": None} and found[1] == whole[1]
    assert select == "loss" or found[0]["passes"] == whole[0]["passes"]  # resumed, loss passes it again


def test_what_was_tried_with_other_settings_is_refused(model, tmp_path):
    journal = tmp_path / "kept.jsonl"
    prune(model, journal, remove=1)
    with pytest.raises(ResultError, match=r"keeps sets that were tried with another ridge: go on as before"):
        prune(model, journal, remove=1, ridge=0.5)
    with pytest.raises(ResultError, match="another text or seed"):
        prune(model, journal, remove=1, seed=1)
    journal.write_text(journal.read_text().replace('"removed"', '"taken"'))
    with pytest.raises(ResultError, match="is damaged"):
        prune(model, journal, remove=1)


def test_no_set_is_tried_twice_for_a_budget(model, tried):
    prune(model, None, max_perplexity_increase=5.0)
    assert len(tried[0]) == len(set(tried[0]))
