"""A passage of held-out text, kept with the error of every layer's map on each of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rectilinear.ops.carriers import token_text
from rectilinear.results import Passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rectilinear.ops.positions import Rows

LONGEST = 256  # tokens kept


@dataclass
class Kept:
    """The head of the first window of the first held-out batch; what comes later is let go.

    batch: its number, None where nothing was held out; place: document and token where the window begins; token [n].
    error: per layer ||z - map(x)|| / ||z|| [n], NaN where the layer adds nothing; sink: per layer a mask [n].
    """

    batch: int | None = None
    place: tuple[int, int] = (0, 0)
    token: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    error: list[np.ndarray] = field(default_factory=list)
    sink: list[np.ndarray] = field(default_factory=list)

    def take(self, rows: Rows, squared: Tensor, z_norm: Tensor, sinks: Tensor | None) -> None:
        """Take in a layer's squared errors [n] and contribution norms [n]; `sinks` [n] as in `Pair.update`."""
        if self.batch is None:
            self.batch, self.place = rows.batch, (int(rows.document[0]), int(rows.offset[0]))
            self.token = rows.token[: _count(rows)]
        if self.batch != rows.batch:
            return
        n = len(self.token)
        norm = z_norm[:n]
        relative = squared[:n].sqrt() / torch.where(norm > 0, norm, torch.nan)
        self.error.append(relative.float().numpy())
        self.sink.append(np.zeros(n, dtype=bool) if sinks is None else sinks[:n].numpy())

    def merge(self, other: Kept) -> Kept:
        """Return the passage of the earlier batch."""
        if self.batch is None or other.batch is None:
            return other if self.batch is None else self
        return self if self.batch <= other.batch else other

    def passage(self, tokenizer: PreTrainedTokenizerBase | None) -> Passage | None:
        """Return where the passage stands and its tokens as text, None where nothing was held out."""
        if self.batch is None:
            return None
        return Passage(*self.place, tuple(token_text(tokenizer, token) for token in self.token.tolist()))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return `passage_error` and `passage_sink` [L, n]; none where nothing was held out."""
        return {"passage_error": np.stack(self.error), "passage_sink": np.stack(self.sink)} if self.error else {}


def _count(rows: Rows) -> int:
    """Return how many rows from the first on are of one window, LONGEST at most."""
    starts = np.flatnonzero(rows.position == 0)
    end = int(starts[1]) if len(starts) > 1 else len(rows.position)
    return min(end, LONGEST)
