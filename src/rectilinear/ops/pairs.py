"""Every span of layers as one linear map, beside the composition of the maps of its single layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from rectilinear.core.grams import Grams
from rectilinear.core.linear import AffineMap, error_of, fit, in_turn, ratio
from rectilinear.errors import ModelError

SETS = 2  # of products: of the tokens that fit and of those that judge


@dataclass
class Spans:
    """Gathers the products of all positions of a stream; sink tokens of any position are left out of all.

    layers: their number L; width: the longest span. A batch's rows are held at all positions while it passes through.
    """

    layers: int
    width: int
    fitted: Grams | None = None
    heldout: Grams | None = None
    _rows: list[Tensor] = field(default_factory=list)
    _sinks: Tensor | None = None

    def take(self, layer: int, x: Tensor, y: Tensor, sinks: Tensor | None, heldout: bool) -> None:
        """Take in the rows [n, d] before and after a layer; `sinks` [n] marks sink tokens, None: there are none."""
        if layer == 0:
            self._rows, self._sinks = [x], None
        self._rows.append(y.to(x.device))
        if sinks is not None:
            sinks = sinks.to(self._rows[0].device)
            self._sinks = sinks if self._sinks is None else self._sinks | sinks
        if layer < self.layers - 1:
            return
        if self.fitted is None or self.heldout is None:
            size = (self.layers + 1, x.shape[1])
            self.fitted, self.heldout = (
                Grams(*size, width=self.width, device=self._rows[0].device) for _ in range(SETS)
            )
        for grams in (self.fitted, self.heldout):
            if grams.shift.device != self._rows[0].device:  # a state that was read is on the CPU
                grams.to_(self._rows[0].device)
        if heldout and not self.heldout.n:
            self.heldout = self.fitted.emptied()  # one shift for all tokens: shards can then be added up
        kept = self._rows if self._sinks is None else [rows[~self._sinks] for rows in self._rows]
        (self.heldout if heldout else self.fitted).update([rows.to(self._rows[0].device) for rows in kept])
        self._rows = []

    def merge_(self, other: Spans) -> None:
        """Add what another one has gathered from other tokens."""
        for name in ("fitted", "heldout"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is None or theirs is None:
                setattr(self, name, mine or theirs)
            else:
                mine.merge_(theirs)

    def empty_(self) -> None:
        """Forget all tokens, and keep the shifts."""
        if self.fitted is not None:
            self.fitted, self.heldout = self.fitted.emptied(), self.fitted.emptied()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scores on held-out tokens of the maps of each span, [first layer, last layer], NaN where not measured.

        span_score, span_increment: of one map fitted for the span; span_composed: the score of the maps fitted for its
        layers one by one, applied in turn.
        """
        assert self.fitted is not None and self.heldout is not None
        names = ("span_score", "span_increment", "span_composed")
        found = {name: np.full((self.layers, self.layers), np.nan) for name in names}
        single = [fit(self.fitted.moments(layer, layer + 1)) for layer in range(self.layers)]
        for first in range(self.layers):
            through: AffineMap | None = None
            for last in range(first, min(first + self.width, self.layers)):
                unseen = self.heldout.moments(first, last + 1)
                whole = single[first] if last == first else fit(self.fitted.moments(first, last + 1))
                through = single[last] if through is None else in_turn(through, single[last])
                error, total = error_of(whole, unseen), float(unseen.syy)
                values = (ratio(error, total), ratio(error, float(unseen.szz)), ratio(error_of(through, unseen), total))
                for name, value in zip(names, values, strict=True):
                    found[name][first, last] = np.nan if value is None else value
        return found


def widest(layers: int, d: int, gib: float) -> int:
    """Return the longest span whose products fit in so many GiB; raises ModelError where those of two layers do not."""
    for width in range(layers, 1, -1):
        if SETS * Grams.blocks(layers + 1, width) * 8 * d * d <= gib * 2**30:
            return width
    needed = SETS * Grams.blocks(layers + 1, min(2, layers)) * 8 * d * d / 2**30
    raise ModelError(
        f"expected {needed:.1f} GiB or more for spans of two layers, got {gib}: give more, or leave spans out"
    )
