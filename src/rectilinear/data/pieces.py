"""From documents to windows: the token budget, the split into fit and held-out, and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rectilinear.data.tokens import encode
from rectilinear.errors import TextError

FEW_DOCUMENTS = 20  # below this, windows are held out and resampled instead of documents
LOOK_AHEAD = 16  # batches sorted by length together, so that pads are few


@dataclass(frozen=True)
class Piece:
    """At most a window of one document: ids [n] from its token `start` on."""

    document: int
    start: int
    ids: np.ndarray


@dataclass(frozen=True)
class Pieces:
    """A text cut for a scan. unit: what is held out and resampled whole, "document" or "window"."""

    fit: tuple[Piece, ...]
    heldout: tuple[Piece, ...]
    unit: str
    documents: int
    requested: int | None
    exhausted: bool

    @property
    def tokens_fit(self) -> int:
        """Tokens the maps are fitted on."""
        return sum(len(p.ids) for p in self.fit)

    @property
    def tokens_heldout(self) -> int:
        """Tokens the maps are judged on."""
        return sum(len(p.ids) for p in self.heldout)

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.tokens_fit + self.tokens_heldout

    def facts(self, d: int) -> dict[str, Any]:
        """Return what a result says of the text, for a stream of width d."""
        return {
            "tokens": self.tokens,
            "tokens_fit": self.tokens_fit,
            "tokens_heldout": self.tokens_heldout,
            "tokens_per_d": {"paper": round(self.tokens / d, 3), "heldout": round(self.tokens_fit / d, 3)},
            "documents": self.documents,
            "unit": self.unit,
            "windows": self.digest,
            "d": d,
        }

    @cached_property
    def digest(self) -> str:
        """16 hex digits that tell cuts apart: by every window's tokens and document, and by which are held out."""
        digest = hashlib.sha256(self.unit.encode())
        for part in (self.fit, self.heldout):
            for piece in part:
                digest.update(f"{piece.document} {piece.start} {len(piece.ids)} ".encode())
                digest.update(piece.ids.astype("<i4").tobytes())
            digest.update(b"|")
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Batch:
    """Pieces padded on the right: ids [b, w] int64, mask [b, w] bool, document and start [b]."""

    ids: np.ndarray
    mask: np.ndarray
    document: np.ndarray
    start: np.ndarray


@dataclass(frozen=True)
class Share:
    """Which batches of a scan are one process's: each `of`-th, from `index` on, counted from 0.

    Batches are shared out, not documents, so that each is to the last bit the one that a scan in one piece has.
    """

    index: int = 0
    of: int = 1

    def owns(self, number: int, opening: int) -> bool:
        """Tell whether a batch is in the share; the first `opening` ones are all in share 0."""
        return (0 if number < opening else number % self.of) == self.index


WHOLE = Share()


def cut_pieces(tokenizer: Any, documents: Iterable[str], *, tokens: int | None, window: int, holdout: float) -> Pieces:
    """Tokenise documents one by one into pieces of at most `window` tokens, until `tokens` are read (None: all).

    No piece holds two documents, so attention never crosses from one to the next. Raises TextError for an empty text or
    one shorter than a window.
    """
    pieces: list[Piece] = []
    left = tokens
    count = 0
    for document in documents:
        ids = encode(tokenizer, document, left).ids
        if not len(ids):
            continue
        pieces += [Piece(count, s, ids[s : s + window]) for s in range(0, len(ids), window)]
        count += 1
        if left is not None:
            left -= len(ids)
            if not left:  # before the next document is asked for: standard input may still be waiting for it
                break
    total = sum(len(p.ids) for p in pieces)
    if not total:
        raise TextError("expected text, got none: the source is empty")
    if total < window:
        budget = f"--tokens {tokens}" if tokens is not None and total == tokens else "the text"
        raise TextError(
            f"expected at least one window of {window} tokens, got {total} from {budget}: give more, "
            f"or --window {total}"
        )
    fit, heldout, unit = _split(pieces, count, holdout)
    return Pieces(fit, heldout, unit, count, tokens, exhausted=bool(left))


def noted(documents: Iterable[str], read: list[str]) -> Iterator[str]:
    """Pass documents on, and put into `read` those that were asked for, to be cut again."""
    for document in documents:
        read.append(document)
        yield document


def from_ids(input_ids: np.ndarray, attention_mask: np.ndarray | None, *, holdout: float) -> Pieces:
    """Take ready windows input_ids [n, w], each a unit of its own; masked places are left out.

    Raises TextError for another shape, for numbers that are no integers, or for a mask that leaves nothing.
    """
    if input_ids.ndim != 2 or not len(input_ids) or not np.issubdtype(input_ids.dtype, np.integer):
        raise TextError(f"expected integer input_ids [n, w], got {input_ids.dtype} {list(input_ids.shape)}")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise TextError(f"expected a mask of shape {list(input_ids.shape)}, got {list(attention_mask.shape)}")
    rows = [row if attention_mask is None else row[attention_mask[i] != 0] for i, row in enumerate(input_ids)]
    pieces = [Piece(i, 0, row.astype(np.int32)) for i, row in enumerate(rows) if len(row)]
    if not pieces:
        raise TextError("expected real tokens, got a mask that leaves none")
    fit, heldout, _ = _split(pieces, 0, holdout)
    return Pieces(fit, heldout, "window", len(pieces), None, exhausted=False)


def batches(pieces: Sequence[Piece], batch_tokens: int) -> Iterator[Batch]:
    """Yield the pieces in batches of at most `batch_tokens` places, pads included (but at least one piece)."""
    buffer: list[Piece] = []
    held = 0
    for piece in pieces:
        buffer.append(piece)
        held += len(piece.ids)
        if held >= LOOK_AHEAD * batch_tokens:
            yield from _sorted_batches(buffer, batch_tokens)
            buffer, held = [], 0
    yield from _sorted_batches(buffer, batch_tokens)


def _sorted_batches(pieces: list[Piece], batch_tokens: int) -> Iterator[Batch]:
    rows: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: -len(p.ids)):
        if rows and len(rows[0].ids) * (len(rows) + 1) > batch_tokens:
            yield _pad(rows)
            rows = []
        rows.append(piece)
    if rows:
        yield _pad(rows)


def _pad(rows: list[Piece]) -> Batch:
    width = len(rows[0].ids)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=bool)
    for i, piece in enumerate(rows):
        ids[i, : len(piece.ids)] = piece.ids
        mask[i, : len(piece.ids)] = True
    return Batch(ids, mask, np.array([p.document for p in rows]), np.array([p.start for p in rows]))


def _split(pieces: list[Piece], documents: int, holdout: float) -> tuple[tuple[Piece, ...], tuple[Piece, ...], str]:
    """Hold out the last pieces, at the boundary of documents (or windows) nearest to the share asked for."""
    by_document = documents >= FEW_DOCUMENTS
    unit = "document" if by_document else "window"
    if holdout == 0:
        return tuple(pieces), (), unit
    ends = np.cumsum([len(p.ids) for p in pieces])
    allowed = [i for i in range(1, len(pieces)) if not by_document or pieces[i].document != pieces[i - 1].document]
    if not allowed:
        return tuple(pieces), (), unit
    wanted = (1 - holdout) * ends[-1]
    cut = min(allowed, key=lambda i: abs(float(ends[i - 1]) - wanted))
    return tuple(pieces[:cut]), tuple(pieces[cut:]), unit
