"""Where text comes from: the demo, standard input, a file, or a data set on the Hugging Face Hub."""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from rectilinear.data.demo import demo_documents
from rectilinear.data.parquet import parquet_rows
from rectilinear.errors import TextError, first_line, nearest
from rectilinear.hub import limit_patience, quiet_client
from rectilinear.reading import from_json

COLUMNS = ("textbook", "text", "content", "story", "context")  # where a row's text is looked for, in this order
END_OF_TEXT = "<|endoftext|>"
ARTICLE = re.compile(r"^ ?= [^=\s](.*[^=\s])? = ?$")  # a top-level heading of WikiText
SUFFIXES = (".txt", ".raw", ".md", ".json", ".jsonl", ".parquet", ".gz")  # a missing one of these is no data set
HUB = re.compile(r"[\w.-]+(/[\w.-]+)?(:[^#]+)?(#.+)?")
LONGEST = 1 << 22  # characters of one document, so that an endless text without marks is still streamed
LONGEST_ROW = 1 << 23  # bytes of a JSON object: what it makes may take 25 times as much memory


@dataclass(frozen=True)
class Text:
    """A source of documents. id: what the result calls it; documents: opens it and yields one document at a time."""

    id: str
    documents: Callable[[], Iterator[str]]


def read_text(source: str | None = None) -> Text:
    """Return the text behind SOURCE; it is read only as far as it is used.

    `demo` (or None): Python's own documentation. `-`: standard input. A .txt, .jsonl or .parquet file, plain or
    .gz (any other name counts as plain text). Else a Hub data set, `name[:config][#split]`. A plain text is split at
    lines `<|endoftext|>`, else at top-level WikiText headings, else every 4 million characters; rows of jsonl,
    parquet and data sets are documents.

    Raises TextError at once for a missing file, and while reading for bad encoding, bad JSON or a missing column.
    """
    if source is None or source == "demo":
        return Text("demo", demo_documents)
    if source == "-":
        return Text("stdin", lambda: _documents(_lines(sys.stdin.buffer, "standard input")))
    path = _local(source)
    if path is None:
        return Text(source, lambda: _texts(enumerate(_hub(source), 1), source))
    return Text(path.name, lambda: _file(path))


def read_rows(source: str) -> Iterator[dict[str, Any]]:
    """Return the rows behind SOURCE, as they are: a .jsonl or .parquet file (plain or .gz), or a Hub data set.

    Raises TextError as `read_text` does, and for a plain text.
    """
    return (row for _, row in numbered_rows(source))


def numbered_rows(source: str, **options: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return the rows of `read_rows`, each with the number of its line (of its row, where there are no lines), from 1.

    options: more of the Hub's load_dataset, for a data set.
    """
    path = _local(source)
    if path is not None and not _tabular(path):
        raise TextError(f"expected a jsonl or parquet file or a Hub data set, got {path.name}")
    return enumerate(_hub(source, **options), 1) if path is None else _file_rows(path)


def _local(source: str) -> Path | None:
    """Return the file that SOURCE names, None where it can only be a data set of the Hub."""
    path = Path(source).expanduser()
    if path.is_dir():
        raise TextError(f"expected a text file, got the folder {source}: name one file in it")
    if path.is_file():
        return path
    if path.suffix in SUFFIXES or source.startswith(("/", ".", "~")) or not HUB.fullmatch(source):
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise TextError(f"expected a text file or a Hub data set, got neither: {source}.{nearest(path.name, there)}")
    return None


def _tabular(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".jsonl", ".json", ".parquet"))


def _file(path: Path) -> Iterator[str]:
    if _tabular(path):
        yield from _texts(_file_rows(path, text_only=True), path.name)
        return
    with _opened(path) as file:
        yield from _documents(_lines(file, path.name))


def _file_rows(path: Path, *, text_only: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.name.endswith(".parquet"):
        yield from enumerate(parquet_rows(path, text_only=text_only), 1)
        return
    with _opened(path) as file:
        yield from _json(_lines(file, path.name, rows=True), path.name)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            yield cast("BinaryIO", file)
    except (EOFError, zlib.error, OSError) as error:
        raise TextError(f"cannot read {path}: {error}") from error


def _lines(file: BinaryIO, name: str, *, rows: bool = False) -> Iterator[str]:
    """Yield lines; one of more than LONGEST bytes comes in parts, or where lines are rows, raises TextError."""
    longest = LONGEST_ROW if rows else LONGEST
    offset = 0  # kept by hand: a text stream decodes in chunks and would give the place within one
    rest = b""
    while part := file.readline(longest):
        line, rest = rest + part, b""
        if len(part) == longest and not part.endswith(b"\n"):
            if rows:
                raise TextError(
                    f"expected rows of less than {longest >> 20} MiB in {name}, got more at offset {offset}"
                )
            end = _cut(line)
            line, rest = line[:end], line[end:]
        yield _decoded(line, name, offset)
        offset += len(line)
    if rest:
        yield _decoded(rest, name, offset)


def _cut(line: bytes) -> int:
    """Return where to cut what is the beginning of a line: not within a mark, a character, or the line's end."""
    mark = line.rfind(b"<", len(line) - len(END_OF_TEXT))
    if mark > 0:
        return mark
    return next((at for at in range(len(line) - 1, len(line) - 5, -1) if line[at] & 0xC0 != 0x80), len(line))


def _decoded(line: bytes, name: str, offset: int) -> str:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(
            f"expected UTF-8 text in {name}, got byte 0x{line[error.start]:02x} at offset {offset + error.start} "
            f"({error.reason}): convert it first, as with iconv -t utf-8"
        ) from error
    return (text if offset else text.removeprefix("\ufeff")).replace("\r\n", "\n")


def _documents(lines: Iterable[str]) -> Iterator[str]:
    """Split plain lines at end-of-text marks or, while none was seen, at WikiText headings."""
    held: list[str] = []
    size = 0
    marked = False
    for line in lines:
        parts = line.split(END_OF_TEXT)
        marked = marked or len(parts) > 1
        if size > LONGEST or (not marked and ARTICLE.match(line.rstrip("\n"))):
            yield from _filled(held)
            held, size = [], 0
        for part in parts[:-1]:
            yield from _filled([*held, part])
            held, size = [], 0
        if len(parts) == 1 or parts[-1].strip():
            held.append(parts[-1])
            size += len(parts[-1])
    yield from _filled(held)


def _filled(parts: list[str]) -> Iterator[str]:
    document = "".join(parts)
    if document.strip():
        yield document


def _json(lines: Iterable[str], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = from_json(line)
        except ValueError as error:
            raise TextError(f"expected one JSON object a line in {name}, line {number}: {error}") from error
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            raise TextError(f"expected a JSON object in {name}, line {number}: got {type(row).__name__}")
        yield number, row


def _hub(source: str, **options: Any) -> Iterator[dict[str, Any]]:
    """Stream a data set of the Hub."""
    name, _, split = source.partition("#")
    name, _, config = name.partition(":")
    try:
        from datasets import load_dataset

        limit_patience()
        with quiet_client():  # not while rows are taken: that may end in another order than it began
            rows = load_dataset(name, config or None, split=split or "train", streaming=True, **options)
        yield from rows
    except Exception as error:  # the Hub's clients raise a dozen kinds, all meaning: not to be had
        raise TextError(
            f"no such file, and no data set {name!r} to be had from the Hub ({first_line(error)}): "
            "name a local file, or 'demo'"
        ) from error


def _texts(rows: Iterable[tuple[int, dict[str, Any]]], name: str) -> Iterator[str]:
    """Yield each row's text; rows that are single lines of WikiText are joined to articles."""
    texts = (_text(row, name, number) for number, row in rows)
    head: list[str] = []
    for text in texts:
        head.append(text)
        if text.strip():
            break
    if head and ARTICLE.match(head[-1].rstrip("\n")):
        yield from _documents(line for part in (head, texts) for line in part)
        return
    for part in (head, texts):
        yield from (text for text in part if text.strip())


def _text(row: dict[str, Any], name: str, number: int) -> str:
    for column in COLUMNS:
        if isinstance(row.get(column), str):
            return row[column]
    strings = [key for key, value in row.items() if isinstance(value, str)]
    if len(strings) != 1:
        raise TextError(
            f"expected a column {', '.join(COLUMNS)} or one column of text in {name}, row {number}: "
            f"got {', '.join(map(str, row)) or 'none'}"
        )
    return row[strings[0]]
