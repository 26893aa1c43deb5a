"""Which tokens carry a layer's error: sums by token as the held-out text flows by, then by string and by class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED = 20  # token strings named per layer, the heaviest first
RARE = 2  # seen so often or less, a token is rare
CLASSES = ("special", "whitespace", "punctuation", "digits", "word start", "continuation")
STARTS = ("Ġ", "▁", " ")  # how tokenizers mark the start of a word


@dataclass
class Carried:
    """Held-out tokens and their squared errors, by token id; sink tokens count apart, whichever they are."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sinks: int = 0
    sink_squares: float = 0.0

    def add(self, tokens: np.ndarray, squared: np.ndarray, sinks: np.ndarray | None) -> None:
        """Add tokens [n] (ids) with their squared errors [n]; `sinks` [n] marks sink tokens, None: there are none."""
        if sinks is not None:
            self.sinks += int(sinks.sum())
            self.sink_squares += float(squared[sinks].sum())
            tokens, squared = tokens[~sinks], squared[~sinks]
        if not len(tokens):
            return
        size = max(int(tokens.max()) + 1, len(self.counts))
        grow = size - len(self.counts)
        self.counts = np.pad(self.counts, (0, grow)) + np.bincount(tokens, minlength=size)
        self.squares = np.pad(self.squares, (0, grow)) + np.bincount(tokens, weights=squared, minlength=size)


def by_token(carried: Carried, tokenizer: PreTrainedTokenizerBase | None) -> tuple[dict[str, Any], ...]:
    """Return the tokens that carry most of the squared error: text, how often they were seen, share of the error."""
    total = float(carried.squares.sum()) + carried.sink_squares
    heaviest = np.argsort(-carried.squares, kind="stable")[:NAMED]
    return tuple(
        {
            "token": token_text(tokenizer, int(token)),
            "count": int(carried.counts[token]),
            "error": float(carried.squares[token]) / total,
        }
        for token in heaviest
        if carried.squares[token] > 0
    )


def by_class(carried: Carried, kinds: np.ndarray) -> tuple[dict[str, Any], ...]:
    """Return for each class of tokens its share of the tokens and of the squared error.

    kinds: the class of every token id, as an index in CLASSES (`kinds_of`). Every token is of one class; "rare" cuts
    across them.
    """
    size = len(carried.counts)
    tokens, error = carried.counts.sum() + carried.sinks, carried.squares.sum() + carried.sink_squares
    if not size or not error:
        return ()
    rare = (carried.counts > 0) & (carried.counts <= RARE)
    members = {name: kinds[:size] == index for index, name in enumerate(CLASSES)} | {"rare": rare}
    sums = {name: (carried.counts[held].sum(), carried.squares[held].sum()) for name, held in members.items()}
    return tuple(
        {"class": name, "tokens": float(count / tokens), "error": float(square / error)}
        for name, (count, square) in ({"sink": (carried.sinks, carried.sink_squares)} | sums).items()
        if count
    )


def kinds_of(tokenizer: PreTrainedTokenizerBase, seen: np.ndarray) -> np.ndarray:
    """Return the class of every token id up to the largest of `seen`, an index in CLASSES, -1 for tokens not seen."""
    special = set(tokenizer.all_special_ids)
    kinds = np.full(int(seen.max(initial=-1)) + 1, -1)
    for token in seen.tolist():
        kinds[token] = CLASSES.index("special" if token in special else _class(tokenizer, token))
    return kinds


def _class(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    text = str(tokenizer.decode([token])).strip()
    if not text:
        return "whitespace"
    if not any(letter.isalnum() or letter == "\ufffd" for letter in text):  # half a letter is no punctuation
        return "punctuation"
    if text.isdigit():
        return "digits"
    piece = str(tokenizer.convert_ids_to_tokens(token))
    return "word start" if piece.startswith(STARTS) else "continuation"


def token_text(tokenizer: PreTrainedTokenizerBase | None, token: int) -> str:
    """Return a token as text, its id where there is no tokenizer."""
    return str(token) if tokenizer is None else str(tokenizer.decode([token]))
