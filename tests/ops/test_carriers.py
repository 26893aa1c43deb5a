import numpy as np
import pytest
import torch

import rectilinear
import tiny
from rectilinear.core.tails import LogHistogram
from rectilinear.ops.carriers import CLASSES, TAIL, Carried, Kinds, by_class, by_token
from rectilinear.report.carriers import classes, strings


class Words:
    """A tokenizer of the pieces given."""

    def __init__(self, *pieces, special=()):
        self.pieces, self.all_special_ids = pieces, list(special)

    def decode(self, ids):
        return "".join(self.pieces[i].replace("Ġ", " ") for i in ids)

    def convert_ids_to_tokens(self, token):
        return self.pieces[token]


TOKENIZER = Words("<s>", "Ġword", "ing", "Ġ12", ".", "\n", "é", special=[0])


def test_every_token_is_of_one_class():
    expected = ["special", "word start", "continuation", "digits", "punctuation", "whitespace", "continuation"]
    kinds = Kinds(TOKENIZER)
    assert kinds(np.array([2, 2])).tolist() == [CLASSES.index("continuation")] * 2
    assert kinds.table.tolist() == [-1, -1, CLASSES.index("continuation")]
    assert [CLASSES[i] for i in kinds(np.arange(7))] == expected
    assert len(kinds(np.arange(0))) == 0 and len(kinds.table) == 7


def test_errors_add_up_by_token_and_class_with_sinks_apart():
    carried, kinds = Carried(), Kinds(TOKENIZER)
    for tokens, squared, sinks in (([1, 2, 1], [1.0, 2.0, 3.0], None), ([4, 1, 1], [4.0, 90.0, 0.0], [0, 1, 0])):
        ids = np.array(tokens)
        carried.add(ids, np.array(squared), None if sinks is None else np.array(sinks, dtype=bool), kinds(ids))
    heaviest = by_token(carried, TOKENIZER)
    assert [(item["token"], item["count"]) for item in heaviest] == [(" word", 3), (".", 1), ("ing", 1)]
    assert heaviest[0]["error"] == pytest.approx(4 / 100)
    found = {item["class"]: (item["tokens"], item["error"]) for item in by_class(carried, kinds.table)}
    assert found["sink"] == pytest.approx((1 / 6, 0.9))
    assert found["word start"] == pytest.approx((3 / 6, 0.04))
    assert found["rare"] == pytest.approx((2 / 6, 0.06))  # seen twice or less, whatever they are
    apart = [value for kind, value in found.items() if kind != "rare"]
    assert np.sum(apart, axis=0) == pytest.approx((1, 1))
    assert by_class(Carried(), kinds.table) == ()
    # Every error is in the histogram of its class, and too few make no tail index.
    assert {name: part.count for name, part in carried.errors.items()} == {
        **{"word start": 3, "continuation": 1, "punctuation": 1},
        "sink": 1,
    }
    assert carried.errors["sink"].max == pytest.approx(90**0.5)
    assert {item["tail_index"] for item in by_class(carried, kinds.table)} == {None}


def test_a_class_has_the_tail_index_of_its_own_errors():
    carried, kinds, rng = Carried(), Kinds(TOKENIZER), np.random.default_rng(0)
    errors = {token: 1 + rng.pareto(shape, 4000) for token, shape in ((1, 1.5), (4, 6.0))}
    for part in range(4):  # in whatever pieces they come
        for token, values in errors.items():
            piece = values[1000 * part : 1000 * part + 1000]
            ids = np.full(len(piece), token)
            carried.add(ids, piece**2, None, kinds(ids))
    found = {item["class"]: item["tail_index"] for item in by_class(carried, kinds.table)}
    for name, token, shape in (("word start", 1, 1.5), ("punctuation", 4, 6.0)):
        whole = LogHistogram()
        whole.update(torch.from_numpy(errors[token]))
        assert found[name] == pytest.approx(whole.tail_index(TAIL), rel=1e-9)
        assert found[name] == pytest.approx(shape, rel=0.2)
    assert "rare" not in found


@pytest.fixture(scope="module")
def result():
    return rectilinear.scan(tiny.llama(), tiny.tokenizer(), tiny.documents(), window=32)


def test_a_scan_tells_who_carries_the_error(result):
    for layer in result.layers:
        apart = [item for item in layer.error_classes if item["class"] != "rare"]
        assert sum(item["tokens"] for item in apart) == pytest.approx(1)
        assert sum(item["error"] for item in apart) == pytest.approx(1)
        assert 0 < sum(item["error"] for item in layer.error_tokens) <= 1
        known = [item["tail_index"] for item in apart if item["tokens"] > 0.9]  # words of one kind
        assert known == [pytest.approx(layer.tails.tail_index, rel=1e-6)]
    kinds = {row.name: row for row in classes(result)}
    name, row = next(iter(kinds.items()))
    shares = [item["error"] for layer in result.layers for item in layer.error_classes if item["class"] == name]
    assert row.most == max(shares)
    assert row.mean == pytest.approx(sum(shares) / len(result.layers))
    assert [r.mean for r in strings(result)] == sorted((r.mean for r in strings(result)), reverse=True)


def test_a_trigger_has_the_text_before_it(result):
    tokenizer, documents = tiny.tokenizer(), tiny.documents()
    for trigger in result.layers[1].triggers:
        ids = tokenizer(documents[trigger["document"]])["input_ids"]
        at = trigger["position"]
        assert tokenizer.decode(ids[at]) == trigger["token"]
        start = max(at - 8, at // 32 * 32)
        assert trigger["before"] == tokenizer.decode(ids[start:at])
