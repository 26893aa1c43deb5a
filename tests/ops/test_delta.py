import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from rectilinear.core.bootstrap import RESAMPLES
from rectilinear.errors import ResultError, TextError
from rectilinear.ops import delta as op
from rectilinear.ops.delta import delta, same_documents
from rectilinear.ops.scan import scan

KINDS = ("paper", "heldout", "ordinary")


def shaken(model, by, seed=1):
    """Return a copy with its weights moved by noise of this size."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in moved.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=by)
    return moved


@pytest.fixture(scope="module")
def documents():
    return tiny.documents(120)


@pytest.fixture(scope="module")
def scans(dense, tokenizer, documents):
    """Scans of a model, of a copy moved a little, and of one whose last layer has lost its MLP: more linear."""
    linear = copy.deepcopy(dense)
    torch.nn.init.zeros_(linear.model.layers[4].mlp.down_proj.weight)
    models = {"old": dense, "near": shaken(dense, 1e-4), "linear": linear}
    # So low a multiple that there are sinks.
    options = {"tokens": "all", "window": 20, "sink_multiple": 1.3}
    return {name: scan(model, tokenizer, documents, **options) for name, model in models.items()}


def test_a_model_against_itself_has_not_moved(scans):
    result = delta(scans["old"], scans["old"])
    for layer in result.layers:
        for changes in (layer.score, layer.increment):
            assert changes.paper.delta == 0 and changes.paper.low is None
            for change in (changes.heldout, changes.ordinary):
                assert (change.delta, change.low, change.high, change.moved) == (0, 0, 0, False)
    assert any("same model" in note for note in result.warnings)


def test_deltas_are_the_differences_of_the_scans(scans):
    old, new = scans["old"], scans["linear"]
    assert any(layer.sinks.count for layer in old.layers)
    result = delta(old, new)
    for index, layer in enumerate(result.layers):
        for name in ("score", "increment"):
            for kind in KINDS:
                a, b = (getattr(getattr(s.layers[index], name), kind) for s in (old, new))
                change = getattr(getattr(layer, name), kind)
                assert (change.before, change.after, change.delta) == (a, b, b - a)
    for name in ("score", "increment"):
        for kind in KINDS:
            gap = new.summary()[name][kind] - old.summary()[name][kind]
            assert getattr(result.mean[name], kind).delta == pytest.approx(gap, abs=1e-12)
    assert not any("same model" in note for note in result.warnings)


def test_the_change_of_one_layer_is_seen_and_the_other_way_round_too(scans):
    there, back = delta(scans["old"], scans["linear"]), delta(scans["linear"], scans["old"])
    assert [layer.layer for layer in there.layers if layer.increment.heldout.moved] == [4]
    assert there.layers[4].increment.heldout.delta > 0.1
    for a, b in zip(there.layers, back.layers, strict=True):
        assert a.increment.heldout.low == pytest.approx(-b.increment.heldout.high, abs=1e-12)
    small = delta(scans["old"], scans["near"])
    assert max(abs(layer.increment.heldout.delta) for layer in small.layers) < 0.01


def test_every_document_drawn_once_gives_the_scores_themselves(scans):
    """The factor that turns totals about the fit rows' mean into those about their own, checked."""
    for found in scans.values():
        for name in ("score", "increment"):
            for kind in ("heldout", "ordinary"):
                once = torch.ones(1, found.arrays[f"{kind}_errors"].shape[1], dtype=torch.float64)
                expected = [getattr(getattr(layer, name), kind) for layer in found.layers]
                assert op._resampled(found, name, kind, once)[0].tolist() == pytest.approx(expected, abs=1e-9)


def test_intervals_agree_with_documents_drawn_one_by_one(scans):
    old, new = scans["old"], scans["linear"]
    rng = np.random.default_rng(0)
    layer, blocks = 4, old.arrays["heldout_errors"].shape[1]

    def score(found, rows):
        errors, totals = found.arrays["heldout_errors"][layer], found.arrays["heldout_totals_z"][layer]
        scale = errors.sum() / (1 - found.layers[layer].increment.heldout) / totals.sum()
        return 1 - errors[rows].sum() / (scale * totals[rows].sum())

    rows = [rng.integers(0, blocks, blocks) for _ in range(RESAMPLES)]
    low, high = np.quantile([score(new, r) - score(old, r) for r in rows], [0.025, 0.975])
    change = delta(old, new).layers[layer].increment.heldout
    width = high - low
    assert change.low == pytest.approx(low, abs=0.15 * width)
    assert change.high == pytest.approx(high, abs=0.15 * width)


def test_undefined_scores_stay_undefined(scans):
    def without(found):
        layer = found.layers[0]
        none = replace(layer.score, paper=None, heldout=None, ordinary=None)
        return replace(found, layers=(replace(layer, score=none), *found.layers[1:]))

    result = delta(without(scans["old"]), scans["linear"])
    change = result.layers[0].score.heldout
    assert (change.before, change.delta, change.low, change.moved) == (None, None, None, False)
    assert result.mean["score"].heldout.low is not None


def test_scans_that_cannot_be_compared_are_refused(scans, dense, tokenizer, documents):
    old = scans["old"]
    facts = old.provenance
    shallow = scan(tiny.llama(num_hidden_layers=2), tokenizer, documents, tokens="all", window=20)
    other = scan(dense, tokenizer, documents[::-1], tokens="all", window=20, sink_multiple=1.3)
    kept = scan(dense, tokenizer, documents, tokens="all", window=20, holdout=0)
    cases = [
        (shallow, "same depth, got 5 and 2 layers"),
        (other, "the same windows of tokens"),
        (kept, "held nothing out"),
        (replace(old, arrays={}), "lacks what each held-out document adds"),
        (replace(old, provenance={**facts, "sink_multiple": 9}), "the same --sink-multiple; got 1.3 and 9"),
        (replace(old, provenance={k: v for k, v in facts.items() if k != "windows"}), "does not say which windows"),
    ]
    for bad, said in cases:
        with pytest.raises(ResultError, match=said):
            delta(old, bad)


def test_precision_is_warned_of(scans):
    half = replace(scans["near"], provenance={**scans["near"].provenance, "dtype": "bfloat16"})
    assert any("float32 before and bfloat16 after" in note for note in delta(scans["old"], half).warnings)


def test_documents_are_read_once_and_only_as_far_as_needed(tokenizer):
    opened = []

    def stream():
        for document in tiny.documents(50):
            opened.append(document)
            yield document

    sizes = {"tokens": 200, "window": 20, "holdout": 0.25}
    read = same_documents([tokenizer, tiny.tokenizer()], stream(), **sizes)
    assert read == opened and len(read) == 5


def test_a_tokenizer_that_cuts_otherwise_is_refused(tokenizer):
    other = tiny.tokenizer()
    other.add_tokens(["w1 w2", "w5"])  # w5 keeps its id; a new word of two does not
    sizes = {"tokens": None, "window": 20, "holdout": 0.25}
    assert same_documents([tokenizer, other], ["w5 w6 w7"] * 40, **sizes)
    with pytest.raises(TextError, match="tokenizers that differ"):
        same_documents([tokenizer, other], ["w5 w1 w2 w6"] * 40, **sizes)
