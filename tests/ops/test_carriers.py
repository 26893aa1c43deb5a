import numpy as np
import pytest

import rectilinear
import tiny
from rectilinear.ops.carriers import CLASSES, Carried, by_class, by_token, kinds_of
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
    kinds = ["special", "word start", "continuation", "digits", "punctuation", "whitespace", "continuation"]
    assert [CLASSES[i] for i in kinds_of(TOKENIZER, np.arange(7))] == kinds
    assert kinds_of(TOKENIZER, np.array([2])).tolist() == [-1, -1, CLASSES.index("continuation")]


def test_errors_add_up_by_token_and_class_with_sinks_apart():
    carried = Carried()
    carried.add(np.array([1, 2, 1]), np.array([1.0, 2.0, 3.0]), None)
    carried.add(np.array([4, 1, 1]), np.array([4.0, 90.0, 0.0]), np.array([False, True, False]))
    heaviest = by_token(carried, TOKENIZER)
    assert [(item["token"], item["count"]) for item in heaviest] == [(" word", 3), (".", 1), ("ing", 1)]
    assert heaviest[0]["error"] == pytest.approx(4 / 100)
    found = {
        item["class"]: (item["tokens"], item["error"]) for item in by_class(carried, kinds_of(TOKENIZER, np.arange(5)))
    }
    assert found["sink"] == pytest.approx((1 / 6, 0.9))
    assert found["word start"] == pytest.approx((3 / 6, 0.04))
    assert found["rare"] == pytest.approx((2 / 6, 0.06))  # seen twice or less, whatever they are
    apart = [value for kind, value in found.items() if kind != "rare"]
    assert np.sum(apart, axis=0) == pytest.approx((1, 1))
    assert by_class(Carried(), kinds_of(TOKENIZER, np.arange(0))) == ()


@pytest.fixture(scope="module")
def result():
    return rectilinear.scan(tiny.llama(), tiny.tokenizer(), tiny.documents(), window=32)


def test_a_scan_tells_who_carries_the_error(result):
    for layer in result.layers:
        apart = [item for item in layer.error_classes if item["class"] != "rare"]
        assert sum(item["tokens"] for item in apart) == pytest.approx(1)
        assert sum(item["error"] for item in apart) == pytest.approx(1)
        assert 0 < sum(item["error"] for item in layer.error_tokens) <= 1
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
