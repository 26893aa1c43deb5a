from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rectilinear.data.pieces import Piece, batches, cut_pieces, from_ids
from rectilinear.errors import TextError


class Letters:
    """A tokenizer of one token a character, that keeps what it was given."""

    def __init__(self) -> None:
        self.longest = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        text.encode()  # as a real one, which takes no lone surrogates
        self.longest = max(self.longest, len(text))
        return {"input_ids": [ord(c) for c in text if c != " "]}


def cut(documents: list[str], tokens: int | None = None, window: int = 4, holdout: float = 0.25) -> Any:
    return cut_pieces(Letters(), documents, tokens=tokens, window=window, holdout=holdout)


def test_every_token_is_in_one_piece_at_its_place_and_no_piece_crosses_documents() -> None:
    documents = ["abcdefghij", "k", "lmno"]
    pieces = cut(documents, holdout=0)
    assert [len(p.ids) for p in pieces.fit] == [4, 4, 2, 1, 4]
    for piece in pieces.fit:
        part = documents[piece.document][piece.start : piece.start + len(piece.ids)]
        assert piece.ids.tolist() == [ord(c) for c in part]
    assert pieces.heldout == () and pieces.tokens == 15 and pieces.documents == 3


def test_the_budget_is_met_exactly_and_reading_stops_there() -> None:
    def endless() -> Iterator[str]:
        yield "abcdef"
        yield "ghijkl"
        raise AssertionError("read on after the budget")

    pieces = cut_pieces(Letters(), endless(), tokens=9, window=4, holdout=0.25)
    assert pieces.tokens == 9 and pieces.requested == 9 and not pieces.exhausted


def test_a_text_that_ends_early_says_so() -> None:
    assert cut(["abcdef"], tokens=100).exhausted
    assert not cut(["abcdef"], tokens=None).exhausted


def test_a_long_document_is_tokenised_only_as_far_as_needed() -> None:
    tokenizer = Letters()
    cut_pieces(tokenizer, ["x" * 1_000_000], tokens=10, window=4, holdout=0)
    assert tokenizer.longest < 2_000


def test_a_document_of_long_tokens_still_fills_the_budget() -> None:
    pieces = cut([" " * 50_000 + "x" * 100, "y" * 100], tokens=60)
    assert pieces.documents == 1 and pieces.tokens == 60


@pytest.mark.parametrize(("count", "unit"), [(19, "window"), (20, "document")])
def test_the_held_out_unit_follows_the_number_of_documents(count: int, unit: str) -> None:
    pieces = cut(["abcdefgh"] * count)
    assert pieces.unit == unit
    assert abs(pieces.tokens_heldout / pieces.tokens - 0.25) <= 4 / pieces.tokens
    if unit == "document":
        assert not {p.document for p in pieces.fit} & {p.document for p in pieces.heldout}
    assert max((p.document, p.start) for p in pieces.fit) < min((p.document, p.start) for p in pieces.heldout)


def test_empty_and_short_texts_are_refused() -> None:
    with pytest.raises(TextError, match="got none"):
        cut(["", " "])
    with pytest.raises(TextError, match=r"one window of 512 tokens, got 3 from the text: .*--window 3"):
        cut(["abc"], window=512)
    with pytest.raises(TextError, match=r"got 3 from --tokens 3"):
        cut(["abcdef"], tokens=3, window=5)


def test_lone_surrogates_are_replaced() -> None:
    with pytest.raises(UnicodeEncodeError):
        Letters()("ab\ud800cd")
    assert cut(["ab\ud800cd"]).tokens == 5


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 64))
def test_batches_hold_every_token_once_within_their_size(lengths: list[int], size: int) -> None:
    rng = np.random.default_rng(0)
    pieces = [Piece(i, 10 * i, rng.integers(1, 99, n).astype(np.int32)) for i, n in enumerate(lengths)]
    seen = {}
    for batch in batches(pieces, size):
        assert batch.ids.dtype == np.int64 and batch.mask.dtype == bool
        assert batch.ids.size <= size or len(batch.ids) == 1
        assert (batch.ids[~batch.mask] == 0).all()
        for row, mask, document, start in zip(batch.ids, batch.mask, batch.document, batch.start, strict=True):
            assert start == 10 * document and mask[: mask.sum()].all()
            seen[int(document)] = row[mask].tolist()
    assert seen == {p.document: p.ids.tolist() for p in pieces}


def test_batches_are_the_same_each_time_and_waste_few_pads() -> None:
    pieces = [Piece(i, 0, np.ones(n, dtype=np.int32)) for i, n in enumerate([1, 64] * 40)]
    first, second = list(batches(pieces, 256)), list(batches(pieces, 256))
    assert all((a.document == b.document).all() for a, b in zip(first, second, strict=True))
    places = sum(b.ids.size for b in first)
    assert places < 1.2 * sum(len(p.ids) for p in pieces)


def test_ready_windows_lose_their_pads_on_either_side() -> None:
    ids = np.arange(12).reshape(3, 4)
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    pieces = from_ids(ids, mask, holdout=0.5)
    assert [p.ids.tolist() for p in (*pieces.fit, *pieces.heldout)] == [[0, 1], [6, 7], [8, 9, 10, 11]]
    assert pieces.unit == "window" and pieces.tokens_fit == pieces.tokens_heldout == 4
    assert from_ids(ids, None, holdout=0).tokens == 12


@pytest.mark.parametrize("ids", [np.zeros(3, int), np.zeros((0, 4), int), np.zeros((2, 2))])
def test_other_shapes_and_kinds_are_refused(ids: np.ndarray) -> None:
    with pytest.raises(TextError, match="expected integer input_ids"):
        from_ids(ids, None, holdout=0)


def test_a_mask_must_fit_and_leave_something() -> None:
    ids = np.zeros((2, 3), int)
    with pytest.raises(TextError, match="expected a mask of shape"):
        from_ids(ids, np.ones((2, 2)), holdout=0)
    with pytest.raises(TextError, match="leaves none"):
        from_ids(ids, np.zeros((2, 3)), holdout=0)
