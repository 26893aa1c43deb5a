import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from rectilinear.data.tokens import encode
from rectilinear.data.windows import SPREAD, apart, drawn_windows, joined, joined_windows, window_batches
from rectilinear.errors import TextError


class Letters:
    """A tokenizer of one token a character, two for those beyond ASCII, that keeps what it was given."""

    is_fast = True

    def __init__(self):
        self.longest = 0

    def __call__(self, text, verbose=True, return_offsets_mapping=False):
        self.longest = max(self.longest, len(text))
        spans = [(i, i + 1) for i, c in enumerate(text) for _ in range(1 + (ord(c) > 127))]
        return {"input_ids": [ord(text[start]) for start, _ in spans], "offset_mapping": spans}


class Slow:
    def __call__(self, text, verbose=True):
        return {"input_ids": [ord(c) for c in text]}


def text_of(ids):
    return "".join(map(chr, ids))


def test_joined_windows_are_the_text_as_it_is_cut_to_full_windows():
    found = joined_windows(Letters(), ["abc", "de", "fghij"], tokens=None, window=4)
    assert found.dtype == np.int64
    assert [text_of(row) for row in found] == ["abcd", "efgh"]
    assert [text_of(row) for row in joined_windows(Letters(), ["abc", "de"], tokens=4, window=2)] == ["ab", "cd"]


def test_joining_reads_and_tokenises_only_as_far_as_needed():
    def endless():
        yield "x" * 100_000
        raise AssertionError("read on after the budget")

    tokenizer = Letters()
    assert joined_windows(tokenizer, endless(), tokens=8, window=4).shape == (2, 4)
    assert tokenizer.longest < 2_000


def test_text_of_few_tokens_a_character_is_read_on():
    words = ("w1" + " " * 500 for _ in range(40))
    assert joined_windows(tiny.tokenizer(), words, tokens=12, window=4).shape == (3, 4)


def test_less_than_a_window_says_how_many_tokens_there_are():
    with pytest.raises(TextError, match=r"window of 8 tokens, got a text of 5.*--window 5"):
        joined_windows(Letters(), ["abc", "de"], tokens=None, window=8)
    with pytest.raises(TextError, match="the source is empty"):
        joined_windows(Letters(), [], tokens=None, window=8)
    with pytest.raises(TextError, match="--tokens 4"):
        joined_windows(Letters(), ["abcdefgh"], tokens=4, window=8)
    with pytest.raises(TextError, match="nothing to predict"):
        apart(Letters(), ["a", "b"], tokens=None, window=8, stride=8)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 9), st.data())
def test_no_token_is_predicted_twice_and_a_stride_leaves_none_out(length, window, data):
    stride = data.draw(st.integers(1, window))
    document = text_of(range(48, 48 + length))
    for cut in (joined, apart):
        if cut is joined and length < window:
            continue
        windows = cut(Letters(), [document], tokens=None, window=window, stride=stride)
        targets = text_of(t for w in windows for t in w.ids[w.first :])
        assert len(set(targets)) == len(targets)
        covered = document if cut is apart else document[: window + (length - window) // stride * stride]
        heads = {covered[s] for s in range(0, len(covered), stride)} if stride == window else {document[0]}
        assert targets == "".join(c for c in covered if c not in heads)
        assert all(len(w.ids) == window for w in windows) or cut is apart


def test_bytes_are_those_of_the_predicted_text():
    text = "aé€😀b" * 3
    for cut in (joined, apart):
        (window,) = cut(Letters(), [text], tokens=None, window=24, stride=24)
        assert window.predicted == 23
        assert window.bytes == len(text.encode()) - 1
    (window,) = apart(Slow(), ["abc"], tokens=None, window=8, stride=8)
    assert window.bytes is None
    assert encode(Letters(), "a\ud800b").ends.tolist() == [1, 2, 3]  # a lone surrogate becomes a question mark


def test_special_tokens_cover_no_text():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny.tokenizer()
    special = [("<unk>", 0)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<unk> $A <unk>", special_tokens=special)
    found = encode(tokenizer, "w1 w22")
    assert found.ids.tolist() == [0, 1, 22, 0]
    assert found.ends.tolist() == [0, 2, 6, 6]


def test_batches_hold_every_window_once_padded_on_the_right():
    windows = apart(Letters(), ["abcdef", "ab", "abcd"], tokens=None, window=4, stride=2)
    batches = list(window_batches(windows, 8))
    assert sorted(i for b in batches for i in b.index) == list(range(len(windows)))
    for batch in batches:
        assert batch.ids.size <= 8
        for row, index in enumerate(batch.index):
            assert batch.ids[row][batch.mask[row]].tolist() == windows[index].ids.tolist()
            assert batch.first[row] == windows[index].first
    budget = apart(Letters(), ["abcdef", "abcdef"], tokens=9, window=4, stride=4)
    assert sum(len(w.ids) for w in budget) == 9


def test_drawn_windows_come_from_further_than_the_tokens_asked_for_and_none_twice():
    letters = ["".join(chr(97 + i % 26) + str(i % 10) for i in range(400))]
    every = [text_of(row) for row in joined_windows(Letters(), letters, tokens=None, window=4)]
    found = [text_of(row) for row in drawn_windows(Letters(), letters, tokens=16, window=4, seed=0)]
    assert len(found) == 4
    places = [every.index(row) for row in found]
    assert max(places) >= 4 and max(places) < 4 * SPREAD
    again = [text_of(row) for row in drawn_windows(Letters(), letters, tokens=16, window=4, seed=0)]
    assert again == found
    whole = drawn_windows(Letters(), letters, tokens=None, window=4, seed=1)
    assert sorted(map(text_of, whole)) == sorted(every)
    with pytest.raises(TextError, match="--tokens 3"):
        drawn_windows(Letters(), letters, tokens=3, window=4, seed=0)
