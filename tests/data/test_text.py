from __future__ import annotations

import gzip
import io
import json
import sys
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rectilinear.data import text as module
from rectilinear.data.demo import demo_documents
from rectilinear.data.text import read_rows, read_text
from rectilinear.errors import TextError

ARTICLES = "\n = One = \n\n first text \n = = A section = = \n more \n\n = B = \n\n second text \n"


def documents(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_text(str(path)).documents())


def test_the_demo_is_the_default_and_the_same_every_time() -> None:
    assert read_text(None).id == read_text("demo").id == "demo"
    topics = list(read_text().documents())
    assert topics == list(demo_documents()) and len(topics) > 20 and all(topics)


def test_a_plain_file_is_one_document(tmp_path: Path) -> None:
    assert documents(tmp_path / "a.md", "one\ntwo\n") == ["one\ntwo\n"]
    assert read_text(str(tmp_path / "a.md")).id == "a.md"


def test_end_of_text_marks_split_a_plain_file_wherever_they_are(tmp_path: Path) -> None:
    found = documents(tmp_path / "a.txt", "one\n<|endoftext|>\n\n<|endoftext|>\ntwo<|endoftext|>three<|endoftext|>four")
    assert [d.strip() for d in found] == ["one", "two", "three", "four"]


def test_headings_split_only_at_the_top_level(tmp_path: Path) -> None:
    first, second = documents(tmp_path / "wiki.raw", ARTICLES)
    assert first.startswith(" = One = ") and "A section" in first
    assert second.startswith(" = B = ")


def test_a_mark_ends_the_splitting_at_headings(tmp_path: Path) -> None:
    assert len(documents(tmp_path / "a.txt", "x<|endoftext|>a\n = Title = \nb\n")) == 2


def test_a_text_without_marks_is_cut_so_that_it_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 100)
    found = documents(tmp_path / "a.txt", "line of words\n" * 50)
    assert len(found) > 3 and "".join(found) == "line of words\n" * 50


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    assert documents(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo") == ["one\ntwo"]


@pytest.mark.parametrize("column", ["textbook", "text", "content", "story", "context", "only"])
def test_json_lines_give_a_document_each(tmp_path: Path, column: str) -> None:
    rows = [{"n": 1, column: "one"}, {"n": 2, column: " "}, {"n": 3, column: "three"}]
    assert documents(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))) == ["one", "three"]


def test_a_textbook_is_taken_before_the_text_that_it_was_written_from(tmp_path: Path) -> None:
    assert documents(tmp_path / "a.jsonl", json.dumps({"text": "source", "textbook": "taught"})) == ["taught"]


def test_compressed_files_read_as_plain_ones(tmp_path: Path) -> None:
    assert documents(tmp_path / "a.jsonl.gz", gzip.compress(b'{"text": "one"}\n\n{"text": "two"}\n')) == ["one", "two"]
    assert documents(tmp_path / "a.txt.gz", gzip.compress(b"one")) == ["one"]


def test_parquet_rows_that_are_lines_are_joined_to_articles(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    def write(name: str, texts: list[str]) -> str:
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / name)
        return str(tmp_path / name)

    assert len(list(read_text(write("wiki.parquet", ARTICLES.splitlines(keepends=True))).documents())) == 2
    assert list(read_text(write("rows.parquet", ["one", "", "two"])).documents()) == ["one", "two"]


def parquet(path: Path, **columns: Any) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return str(path)


MAP = pyarrow.array([[("a", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
BEYOND = {  # values that Python has no room for, or no name
    "when": pyarrow.array([2**62] * 2, pyarrow.timestamp("us")),
    "where": pyarrow.array([1] * 2, pyarrow.timestamp("s", tz="Evil/Zone")),
    "day": pyarrow.array([2**31 - 1] * 2, pyarrow.int32()).cast(pyarrow.date32()),
    "long": pyarrow.array([2**62] * 2, pyarrow.duration("us")),
}


@pytest.mark.parametrize("name", BEYOND)
def test_columns_that_are_no_text_are_not_read(tmp_path: Path, name: str) -> None:
    path = parquet(tmp_path / "a.parquet", text=["one", "two"], label=[0, 1], **{name: BEYOND[name]})
    assert list(read_text(path).documents()) == ["one", "two"]
    assert list(read_rows(path)) == [{"text": "one", "label": 0}, {"text": "two", "label": 1}]
    alone = parquet(tmp_path / "b.parquet", **{name: BEYOND[name]})
    with pytest.raises(TextError, match=rf"expected a column of text or numbers in b\.parquet, got {name} \("):
        list(read_rows(alone))
    with pytest.raises(TextError, match=rf"expected a column of text in b\.parquet, got {name}"):
        list(read_text(alone).documents())


def test_rows_of_nested_columns_are_read(tmp_path: Path) -> None:
    choices = [{"label": ["A", "B"], "text": ["x", "y"]}]
    path = parquet(tmp_path / "a.parquet", choices=choices, none=pyarrow.array([None]), map=MAP)
    assert list(read_rows(path)) == [{"choices": choices[0], "none": None}]


def test_a_long_text_that_many_rows_repeat_is_not_unpacked_for_all_at_once(tmp_path: Path) -> None:
    long = pyarrow.array(["a" * 10**6, " ", "b"])
    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1, 2, 0] * 100), long)
    path = parquet(tmp_path / "a.parquet", text=rows.cast(pyarrow.string()))
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    tracemalloc.start()
    sizes = [len(text) for text in read_text(path).documents()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sizes == [10**6, 1, 10**6] * 100
    assert peak < 60 << 20


def test_no_bit_of_what_a_parquet_file_says_of_itself_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, text=["one", "two"], label=[0, 1])
    whole = path.read_bytes()
    for at in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            list(read_text(str(path)).documents())
        except TextError as error:
            assert "\n" not in str(error)


def test_a_line_without_end_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "naïve 漢字 𝄞<|endoftext|>\r\n<|endoftext|>" * 40
    for longest in range(30, 80):
        monkeypatch.setattr(module, "LONGEST", longest)
        found = documents(tmp_path / "a.txt", line)
        assert "".join(found) == "naïve 漢字 𝄞" * 40
    monkeypatch.setattr(module, "LONGEST", 1 << 10)
    found = documents(tmp_path / "a.txt.gz", gzip.compress(b"x" * 10**6))
    assert "".join(found) == "x" * 10**6 and max(map(len, found)) < 3 << 10
    with pytest.raises(TextError, match="got byte 0xff at offset 5000 "):
        documents(tmp_path / "a.txt", b"x" * 5000 + b"\xff")


def test_a_row_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"expected rows of less than 8 MiB in a\.jsonl\.gz, got more at offset 14"):
        documents(tmp_path / "a.jsonl.gz", gzip.compress(b'{"text": "x"}\n["' + b"a" * (9 << 20) + b'"]'))


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("one<|endoftext|>zwölf".encode())))
    assert list(read_text("-").documents()) == ["one", "zwölf"]


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n' + "{broken\n")
    assert list(islice(read_text(str(path)).documents(), 1)) == ["one"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nbad \xff here", r"UTF-8 text in a\.txt, got byte 0xff at offset 9 "),
        ("a.jsonl", b'{"text": "x"}\n\n{broken', r"a\.jsonl, line 3"),
        ("a.jsonl", b"[1, 2]", r"a\.jsonl, line 1: got list"),
        ("a.jsonl", b'{"a": "x", "b": "y"}', r"row 1: got a, b"),
        ("a.txt.gz", gzip.compress(b"word " * 1000, mtime=0)[:-20], r"cannot read .*a\.txt\.gz"),
        ("a.txt.gz", b"not compressed", r"cannot read .*a\.txt\.gz"),
        ("a.parquet", b"not parquet", r"cannot read .*a\.parquet as parquet"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(TextError, match=message) as error:
        documents(tmp_path / name, content)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(TextError, match=r"got neither: .*Did you mean 'notes\.txt'\?"):
        read_text(str(tmp_path / "note.txt"))
    with pytest.raises(TextError, match="got the folder"):
        read_text(str(tmp_path))


@pytest.mark.parametrize("source", ["owner/name", "owner/name-1.5", "owner/name:config-v1.0", "name:c#validation[:10]"])
def test_a_hub_name_reaches_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[str, str | None, str]] = []

    def fake(name: str, config: str | None, *, split: str, streaming: bool) -> list[dict[str, str]]:
        asked.append((name, config, split))
        return [{"text": line} for line in ARTICLES.splitlines(keepends=True)]

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert len(list(read_text(source).documents())) == 2
    name, config, split = asked[0]
    assert source == name + (f":{config}" if config else "") + (f"#{split}" if split != "train" else "")


def test_a_hub_that_is_out_of_reach_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(TextError, match=r"no data set 'owner/name' .*\(no route\)"):
        list(read_text("owner/name").documents())
