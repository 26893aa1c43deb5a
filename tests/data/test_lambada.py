import gzip
import json

import pytest

import tiny
from rectilinear.data.lambada import passage_windows, read_passages
from rectilinear.errors import TextError


def rows(path, *items):
    path.write_bytes(gzip.compress("\n".join(json.dumps(item) for item in items).encode()))
    return str(path)


def test_both_forms_give_context_and_word(tmp_path):
    source = rows(
        tmp_path / "l.jsonl.gz",
        {"text": "one two\nthree  four\n"},
        {"context": "one two\nthree ", "continuation": "four"},
    )
    assert list(read_passages(source)) == [("one two\nthree", "  four"), ("one two\nthree", " four")]


def test_other_rows_are_named(tmp_path):
    for row, said in (({"story": "a b"}, r"row 2.*got story"), ({"text": "word"}, "two words or more in row 2")):
        with pytest.raises(TextError, match=said):
            list(read_passages(rows(tmp_path / "l.jsonl.gz", {"text": "a b"}, row)))
    (tmp_path / "plain.txt").write_text("a b")
    with pytest.raises(TextError, match=r"jsonl or parquet.*plain\.txt"):
        next(read_passages(str(tmp_path / "plain.txt")))
    with pytest.raises(TextError, match="got neither"):
        next(read_passages("gone.jsonl"))


def test_a_hub_name_is_streamed(monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": "one two"}])
    assert list(read_passages("owner/lambada#test")) == [("one", " two")]


def test_the_words_tokens_are_predicted_and_a_long_context_loses_its_beginning():
    passages = [("w1 w2 w3", " w4"), ("w5", " w6!")]
    first, second = passage_windows(tiny.tokenizer(), passages, None)
    assert first.ids.tolist() == [1, 2, 3, 4] and first.first == 3
    assert second.predicted == 2
    (short, _) = passage_windows(tiny.tokenizer(), passages, 3)
    assert short.ids.tolist() == [2, 3, 4] and short.first == 2
    with pytest.raises(TextError, match="got none"):
        passage_windows(tiny.tokenizer(), [], None)


def test_a_word_swallowed_by_the_context_still_counts():
    (window,) = passage_windows(tiny.tokenizer(), [("w1 w", "2")], None)
    assert window.ids.tolist() == [1, 2] and window.first == 1
