import builtins
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tiny
from rectilinear.data.tasks import Example, Task
from rectilinear.errors import NonFiniteError, RectilinearError, TextError
from rectilinear.models.stack import decoder_stack, watch
from rectilinear.ops.evaluate import Candidate
from rectilinear.ops.pooled import last_of, mean_of, pooled
from rectilinear.ops.probe import STRENGTHS, ProbeSettings, probe, probe_models


def examples(count, seed, words=12):
    """Texts of random words, of class 1 where w7 is more frequent than w9; the last word tells nothing."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        label = int(rng.integers(2))
        row = [f"w{i}" for i in rng.integers(10, tiny.VOCAB, words)]
        for place in rng.choice(words - 1, 4, replace=False):
            row[place] = "w7" if label else "w9"
        made.append(Example(" ".join(row), label, number))
    return tuple(made)


@pytest.fixture(scope="module")
def task():
    return Task("words", "made up", ("w9", "w7"), examples(80, 0), examples(60, 1))


@pytest.fixture(scope="module")
def model():
    return tiny.llama(initializer_range=0.15)


def quick(*given, **options):
    """Probe with as little cross-validation as can be."""
    return probe(*given, **{"folds": 2, **options})


def test_pooling_leaves_pads_out():
    stream = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert mean_of(stream, mask).tolist() == [[1.0, 2.0], [8.0, 9.0]]
    assert last_of(stream, mask).tolist() == [[2.0, 3.0], [10.0, 11.0]]
    assert mean_of(stream.bfloat16(), mask).dtype == torch.float32


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_features_are_those_of_examples_passed_one_by_one(model, tokenizer, pooling):
    texts = [e.text for e in examples(5, 3)] + ["w1 w2 w3", "w4"]  # of unlike lengths: batches have pads
    ids = [np.array(tokenizer(text)["input_ids"]) for text in texts]
    seen = []
    with pooled(model, ids, pooling, batch_tokens=30, advance=seen.append) as features:
        kept = np.array(features)
        assert isinstance(features, np.memmap) and features.dtype == np.float32
    assert kept.shape == (4, 7, 32) and sum(seen) == sum(map(len, ids)) and len(seen) > 1
    for number, row in enumerate(ids):
        streams = []
        with (
            torch.inference_mode(),
            watch(decoder_stack(model), lambda i, x, y, kept=streams: kept.extend([x, y] if not i else [y])),
        ):
            model(torch.from_numpy(row)[None])
        for position, stream in enumerate(streams):
            wanted = stream[0].mean(0) if pooling == "mean" else stream[0, -1]
            assert kept[position, number] == pytest.approx(wanted.numpy(), abs=2e-5)


def test_the_file_of_features_goes_away(model, tokenizer):
    with pooled(model, [np.array([1, 2])], "mean", batch_tokens=8) as features:
        file = features.filename
    assert not file.exists()


def test_probes_read_what_is_there_and_nothing_else(model, tokenizer, task):
    result = quick(model, tokenizer, task)
    (curve,) = result.curves
    assert [p.position for p in curve.points] == [0, 1, 2, 3]
    assert curve.points[0].accuracy > 0.9  # counts of words are linear in the mean embedding
    assert 0.8 < curve.points[0].low < curve.points[0].accuracy <= curve.points[0].high
    last = quick(model, tokenizer, task, pooling="last").curves[0]
    assert last.points[0].accuracy < 0.7  # the embedding of the last word knows nothing of the others
    rng = np.random.default_rng(5)
    noise = replace(task, train=tuple(replace(e, label=int(rng.integers(2))) for e in task.train))
    assert np.mean([p.accuracy for p in quick(model, tokenizer, noise).curves[0].points]) < 0.75
    assert result.majority == pytest.approx(task.majority) and 0.4 < result.majority < 0.6


def test_a_probe_is_scikit_learns_logistic_regression(model, tokenizer, task):
    point = quick(model, tokenizer, task).curves[0].points[2]
    assert point.strength in STRENGTHS
    ids = [np.array(tokenizer(e.text)["input_ids"]) for e in (*task.train, *task.test)]
    with pooled(model, ids, "mean", batch_tokens=4096) as features:
        train, test = np.array(features[2][:80]), np.array(features[2][80:])
    scaler = StandardScaler().fit(train)
    direct = LogisticRegression(C=point.strength, max_iter=1000).fit(
        scaler.transform(train), [e.label for e in task.train]
    )
    assert point.accuracy == direct.score(scaler.transform(test), [e.label for e in task.test])
    assert point.train_accuracy == direct.score(scaler.transform(train), [e.label for e in task.train])


def test_test_examples_choose_nothing(model, tokenizer, task):
    """Strength and training accuracy are the same whatever the test labels are."""
    turned = replace(task, test=tuple(replace(e, label=1 - e.label) for e in task.test))
    a, b = (quick(model, tokenizer, t).curves[0].points for t in (task, turned))
    for one, other in zip(a, b, strict=True):
        assert (one.strength, one.train_accuracy) == (other.strength, other.train_accuracy)
        assert one.accuracy == pytest.approx(1 - other.accuracy)


def test_examples_of_one_group_count_as_one_for_the_interval(model, tokenizer, task):
    copies = tuple(replace(e, group=number) for number, e in enumerate(task.test[:12] * 5))
    alone = quick(model, tokenizer, replace(task, test=copies), pooling="last").curves[0].points[3]
    grouped = tuple(replace(e, group=number % 12) for number, e in enumerate(task.test[:12] * 5))
    together = quick(model, tokenizer, replace(task, test=grouped), pooling="last").curves[0].points[3]
    assert together.accuracy == alone.accuracy
    assert together.high - together.low > 1.6 * (alone.high - alone.low)


def test_models_stand_against_the_first_in_pairs(model, tokenizer, task):
    blind = copy.deepcopy(model)
    torch.nn.init.zeros_(blind.model.embed_tokens.weight)
    names = {"seeing": model, "again": model, "blind": blind}
    asked = []

    def loaded(name):
        asked.append(name)
        return Candidate(name, names[name], tokenizer)

    result = probe_models(map(loaded, names), task, ProbeSettings(folds=2))
    seeing, again, other = result.curves
    assert asked == list(names) and seeing.gap is None
    assert (again.gap, again.gap_low, again.gap_high) == (0, 0, 0)
    assert other.gap == pytest.approx(other.mean - seeing.mean) and other.gap_low < other.gap < other.gap_high < 0
    assert all(point.accuracy == result.majority for point in other.points)


def test_long_examples_are_cut_and_counted(model, tokenizer, task):
    result = quick(model, tokenizer, task, window=8)
    assert result.curves[0].truncated == 140
    assert any("140 of 140 examples were cut to 8 tokens" in note for note in result.warnings)
    assert quick(model, tokenizer, task, window=12).curves[0].truncated == 0


def test_the_same_seed_gives_the_same_result(model, tokenizer, task):
    one, two = (quick(model, tokenizer, task, seed=4, folds=3) for _ in range(2))
    assert one.curves == two.curves and one.provenance["folds"] == 3


def test_wrong_input_is_told(model, tokenizer, task):
    cases = [
        (RectilinearError, {"pooling": "max"}, "a pooling of mean, last, got 'max'"),
        (RectilinearError, {"folds": 1}, "two folds"),
    ]
    for error, options, said in cases:
        with pytest.raises(error, match=said):
            quick(model, tokenizer, task, **options)
    few = replace(task, train=(*[e for e in task.train if e.label][:9], next(e for e in task.train if not e.label)))
    with pytest.raises(TextError, match="too few of words: give more --examples"):
        quick(model, tokenizer, few)
    empty = replace(task, test=(*task.test, Example("", 0, 99)))
    with pytest.raises(TextError, match="an example of a token or more"):
        quick(model, tokenizer, empty)
    broken = copy.deepcopy(model)
    torch.nn.init.constant_(broken.model.layers[1].mlp.down_proj.weight, float("inf"))
    with pytest.raises(NonFiniteError, match="position 2 of the stream"):
        probe(broken, tokenizer, task)


def test_scikit_learn_is_named_where_it_is_missing(model, tokenizer, task, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(
        RectilinearError, match=r"scikit-learn for probes, got none: pip install 'rectilinear\[probe\]'"
    ):
        quick(model, tokenizer, task)


def test_every_family_is_probed(task):
    import families

    few = replace(task, train=task.train[:30], test=task.test[:10])
    for name in ("gpt2", "opt_350m", "bloom", "gpt_neox", "falcon"):
        model = families.FAMILIES[name]()
        points = quick(model, tiny.tokenizer(), few).curves[0].points
        assert len(points) == families.LAYERS + 1
