"""Windows to predict tokens in: documents joined or apart, strided or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rectilinear.data.pieces import Piece, batches
from rectilinear.data.tokens import CHARACTERS, MARGIN, Tokens, encode
from rectilinear.errors import TextError

SPREAD = 8


@dataclass(frozen=True)
class Window:
    """ids [n], of which those from index `first` on (1 or more) are predicted from the ones before them.

    document: which one it is cut from. bytes: of the text that the predicted tokens cover, None where unknown.
    """

    document: int
    ids: np.ndarray
    first: int
    bytes: int | None

    @property
    def predicted(self) -> int:
        """Tokens that are predicted."""
        return len(self.ids) - self.first


@dataclass(frozen=True)
class Batch:
    """Windows padded on the right: ids [b, w] int64, mask [b, w] bool, first [b] int64, index [b] of the windows."""

    ids: np.ndarray
    mask: np.ndarray
    first: np.ndarray
    index: np.ndarray


def joined_windows(tokenizer: Any, documents: Iterable[str], *, tokens: int | None, window: int) -> np.ndarray:
    """Return the first `tokens` tokens (None: all) of the documents as full windows [n, window] int64.

    The documents are joined as they are, nothing put between them, and tokenised as one text; the end that fills no
    window is left out. Raises TextError for a text of less than one window.
    """
    ids = _joined(tokenizer, documents, tokens, window).ids
    return ids[: len(ids) // window * window].astype(np.int64).reshape(-1, window)


def drawn_windows(
    tokenizer: Any, documents: Iterable[str], *, tokens: int | None, window: int, seed: int
) -> np.ndarray:
    """Return full windows [n, window] int64 of `tokens` tokens in all (None: of the whole text), drawn by chance.

    They are drawn from the first SPREAD times as many tokens of the joined documents, or all where there are fewer: the
    head of a text may be one document, and speak for that only. Raises TextError for a text of less than one window.
    """
    read = tokens if tokens is None or tokens < window else SPREAD * tokens
    found = joined_windows(tokenizer, documents, tokens=read, window=window)
    order = np.random.default_rng(seed).permutation(len(found))
    return found[order if tokens is None else order[: tokens // window]]


def joined(
    tokenizer: Any, documents: Iterable[str], *, tokens: int | None, window: int, stride: int
) -> tuple[Window, ...]:
    """Return full windows of the joined documents, each `stride` after the one before; no token is predicted twice.

    Raises TextError for a text of less than one window.
    """
    found = _joined(tokenizer, documents, tokens, window)
    whole = window + (len(found.ids) - window) // stride * stride
    return tuple(_cut(found, 0, whole, window, stride))


def apart(
    tokenizer: Any, documents: Iterable[str], *, tokens: int | None, window: int, stride: int
) -> tuple[Window, ...]:
    """Return windows of at most `window` tokens, none across two documents; no token is predicted twice.

    Documents of one token predict nothing and are left out. Raises TextError where nothing is left.
    """
    found: list[Window] = []
    left = tokens
    for number, document in enumerate(documents):
        text = encode(tokenizer, document, left)
        found += _cut(text, number, len(text.ids), window, stride)
        if left is not None:
            left -= len(text.ids)
            if not left:
                break
    if not found:
        raise TextError("expected a document of two tokens or more, got none: there is nothing to predict")
    return tuple(found)


def window_batches(windows: Sequence[Window], batch_tokens: int) -> Iterator[Batch]:
    """Yield the windows in batches of at most `batch_tokens` places, pads included (but at least one window)."""
    first = np.array([window.first for window in windows])
    for batch in batches([Piece(i, 0, window.ids) for i, window in enumerate(windows)], batch_tokens):
        yield Batch(batch.ids, batch.mask, first[batch.document], batch.document)


def _joined(tokenizer: Any, documents: Iterable[str], tokens: int | None, window: int) -> Tokens:
    """Return the tokens of the documents as one text, read only as far as needed; at least a window."""
    if tokens is not None and tokens < window:
        raise TextError(
            f"expected a budget of one window of {window} tokens or more, got --tokens {tokens}: give more, "
            f"or --window {tokens}"
        )
    source = iter(documents)
    parts: list[str] = []
    wanted = None if tokens is None else CHARACTERS * (tokens + MARGIN)
    while True:
        ended = _read(source, parts, wanted)
        found = encode(tokenizer, "".join(parts), tokens)
        if ended or tokens is None or len(found.ids) >= tokens:
            break
        wanted = 4 * sum(map(len, parts))
    if not len(found.ids):
        raise TextError("expected text, got none: the source is empty")
    if len(found.ids) < window:
        raise TextError(
            f"expected at least one window of {window} tokens, got a text of {len(found.ids)}: give more, "
            f"or --window {len(found.ids)}"
        )
    return found


def _read(source: Iterator[str], parts: list[str], wanted: int | None) -> bool:
    """Read documents into `parts` until they hold `wanted` characters; return whether the source ended before."""
    held = sum(map(len, parts))
    while wanted is None or held < wanted:
        document = next(source, None)
        if document is None:
            return True
        parts.append(document)
        held += len(document)
    return False


def _cut(text: Tokens, document: int, length: int, window: int, stride: int) -> Iterator[Window]:
    """Yield windows over the first `length` tokens; the last one may be shorter."""
    done = 0
    for start in range(0, length, stride):
        if done >= length:
            return
        end = min(start + window, length)
        # A window's first token has nothing before it; what an earlier window predicted is only context.
        first = max(1, done - start)
        if end - start > first:
            size = None if text.ends is None else int(text.ends[end - 1] - text.ends[start + first - 1])
            yield Window(document, text.ids[start:end], first, size)
        done = end
