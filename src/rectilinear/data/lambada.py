"""LAMBADA: passages whose last word can be guessed from the whole, not from the last sentence alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rectilinear.data.text import read_rows
from rectilinear.data.tokens import encode
from rectilinear.data.windows import Window
from rectilinear.errors import TextError


def read_passages(source: str) -> Iterator[tuple[str, str]]:
    """Yield (context, last word with the space before it) of each row of a jsonl or parquet file or Hub data set.

    Rows hold either a `text`, cut at its last space, or a `context` and a `continuation`. As in lm-evaluation-harness,
    white space at the end of the context belongs to the word; ours is that white space after the word is dropped.
    Raises TextError for other rows, and for a passage of one word.
    """
    for number, row in enumerate(read_rows(source), 1):
        text = row.get("text")
        if isinstance(row.get("context"), str) and isinstance(row.get("continuation"), str):
            text = f"{row['context'].rstrip()} {row['continuation'].strip()}"
        if not isinstance(text, str):
            raise TextError(
                f"expected `text`, or `context` and `continuation`, in row {number} of {source}: "
                f"got {', '.join(map(str, row)) or 'nothing'}"
            )
        text = text.rstrip()
        context = text[: text.rfind(" ") + 1].rstrip()
        if not context:
            raise TextError(f"expected a passage of two words or more in row {number} of {source}, got {text[:40]!r}")
        yield context, text[len(context) :]


def passage_windows(tokenizer: Any, passages: Iterable[tuple[str, str]], limit: int | None) -> tuple[Window, ...]:
    """Return one window a passage, of which the last word's tokens are predicted.

    The word's tokens are those of the whole passage that come after the context's own. A passage longer than `limit`
    tokens loses its beginning. Raises TextError where there are no passages.
    """
    windows = []
    for number, (context, word) in enumerate(passages):
        ids = encode(tokenizer, context + word).ids
        # Where the context's last token swallows the word, its last token at least is predicted.
        first = max(1, min(len(encode(tokenizer, context).ids), len(ids) - 1))
        surplus = 0 if limit is None else max(0, len(ids) - limit)
        windows.append(Window(number, ids[surplus:], max(1, first - surplus), None))
    if not windows:
        raise TextError("expected passages of LAMBADA, got none: the source is empty")
    return tuple(windows)
