"""Which tokens carry a layer's error: sums by token as the held-out text flows by, then by string and by class."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rectilinear.core.tails import LogHistogram

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAIL = 0.05  # share of the worst tokens that a tail index is estimated on
NAMED = 20  # token strings named per layer, the heaviest first
RARE = 2  # seen so often or less, a token is rare
SINK = "sink"
CLASSES = ("special", "whitespace", "punctuation", "digits", "word start", "continuation")
STARTS = ("Ġ", "▁", " ")  # how tokenizers mark the start of a word


@dataclass
class Carried:
    """Held-out tokens and their squared errors, by token id; sink tokens count apart, whichever they are."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sinks: int = 0
    sink_squares: float = 0.0
    errors: dict[str, LogHistogram] = field(default_factory=lambda: defaultdict(LogHistogram))  # by class, not squared

    def add(
        self, tokens: np.ndarray, squared: np.ndarray, sinks: np.ndarray | None, kinds: np.ndarray | None = None
    ) -> None:
        """Add tokens [n] (ids) with their squared errors [n].

        `sinks` [n] marks sink tokens, None: there are none. `kinds` [n] are indices in CLASSES, None: not known.
        """
        if sinks is not None:
            self.sinks += int(sinks.sum())
            self.sink_squares += float(squared[sinks].sum())
            self._add_errors(SINK, squared[sinks])
            tokens, squared = tokens[~sinks], squared[~sinks]
            kinds = None if kinds is None else kinds[~sinks]
        if not len(tokens):
            return
        for kind in () if kinds is None else np.unique(kinds):
            self._add_errors(CLASSES[kind], squared[kinds == kind])
        size = int(tokens.max()) + 1
        if size > len(self.counts):
            self.counts, self.squares = _padded(self.counts, size), _padded(self.squares, size)
        self.counts += np.bincount(tokens, minlength=len(self.counts))
        self.squares += np.bincount(tokens, weights=squared, minlength=len(self.counts))

    def merge(self, other: Carried) -> Carried:
        """Return the same of both sets of tokens."""
        size = max(len(self.counts), len(other.counts))
        counts = _padded(self.counts, size) + _padded(other.counts, size)
        squares = _padded(self.squares, size) + _padded(other.squares, size)
        both = Carried(counts, squares, self.sinks + other.sinks, self.sink_squares + other.sink_squares)
        for name in {**self.errors, **other.errors}:
            both.errors[name] = self.errors[name].merge(other.errors[name])
        return both

    def _add_errors(self, name: str, squared: np.ndarray) -> None:
        self.errors[name].update(torch.from_numpy(np.sqrt(squared)))


class Kinds:
    """The class of every token, found out when it is first asked for.

    table: by token id, an index in CLASSES; -1 for tokens not seen yet.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.table = np.full(0, -1)
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)

    def merge_(self, table: np.ndarray) -> None:
        """Take over what another table knows."""
        size = max(len(self.table), len(table))
        known = [np.pad(one, (0, size - len(one)), constant_values=-1) for one in (self.table, table)]
        self.table = np.maximum(*known)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Return the classes [n] of tokens [n], indices in CLASSES."""
        grow = max(int(tokens.max(initial=-1)) + 1 - len(self.table), 0)
        self.table = np.pad(self.table, (0, grow), constant_values=-1)
        for token in np.unique(tokens[self.table[tokens] < 0]).tolist():
            self.table[token] = CLASSES.index("special" if token in self._special else _class(self._tokenizer, token))
        return self.table[tokens]


def _padded(sums: np.ndarray, size: int) -> np.ndarray:
    return np.pad(sums, (0, size - len(sums)))


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
    """Return for each class of tokens its share of the tokens and of the squared error, and its error's tail index.

    kinds: the class of every token id (`Kinds.table`). Every token is of one class; "rare" cuts across them, and is
    known only in the end: it has no tail index, nor has a class of too few tokens.
    """
    size = len(carried.counts)
    tokens, error = carried.counts.sum() + carried.sinks, carried.squares.sum() + carried.sink_squares
    if not size or not error:
        return ()
    rare = (carried.counts > 0) & (carried.counts <= RARE)
    members = {name: kinds[:size] == index for index, name in enumerate(CLASSES)} | {"rare": rare}
    sums = {name: (carried.counts[held].sum(), carried.squares[held].sum()) for name, held in members.items()}
    return tuple(
        {
            "class": name,
            "tokens": float(count / tokens),
            "error": float(square / error),
            "tail_index": carried.errors[name].tail_index(TAIL) if name in carried.errors else None,
        }
        for name, (count, square) in ({SINK: (carried.sinks, carried.sink_squares)} | sums).items()
        if count
    )


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
