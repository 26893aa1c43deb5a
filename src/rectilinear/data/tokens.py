"""From text to token ids, and how many bytes of the text each token ends at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CHARACTERS = 16  # a token's first guess, generous, for how much of a document a budget can need
MARGIN = 32  # tokens more than needed, for a cut through a word changes the last ones


@dataclass(frozen=True)
class Tokens:
    """A tokenised text: ids [n] int32; ends [n], bytes of UTF-8 from the text's start to each token's end.

    ends is None where the tokenizer (a slow one) does not tell.
    """

    ids: np.ndarray
    ends: np.ndarray | None


def encode(tokenizer: Any, text: str, limit: int | None = None) -> Tokens:
    """Return a text's tokens, the first `limit` of them; a long text is tokenised only as far as needed.

    Special tokens that the tokenizer adds by itself are kept; they end where the token before them ends.
    """
    offsets = bool(getattr(tokenizer, "is_fast", False))
    options = {"return_offsets_mapping": True} if offsets else {}
    size = len(text) if limit is None else CHARACTERS * (limit + MARGIN)
    while True:
        # A lone surrogate (possible in JSON) is no text that a tokenizer could take.
        part = text[:size].encode("utf-8", "replace").decode("utf-8")
        found = tokenizer(part, verbose=False, **options)
        ids = np.asarray(found["input_ids"], dtype=np.int32)
        if limit is None or size >= len(text) or len(ids) >= limit + MARGIN:
            break
        size *= 4
    if not offsets or not len(ids):
        return Tokens(ids[:limit], None)
    ends = np.asarray(found["offset_mapping"], dtype=np.int64)[:limit, 1]
    return Tokens(ids[:limit], _bytes_before(part)[np.maximum.accumulate(ends)])


def _bytes_before(text: str) -> np.ndarray:
    """Return [characters + 1]: the bytes of UTF-8 before each character, and of the whole."""
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
