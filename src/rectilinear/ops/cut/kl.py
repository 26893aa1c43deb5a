"""The `kl` selector: sets of layers judged by their divergence from the dense model after their own repair."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rectilinear.ops.cut.selectors import SELECTORS, Path, Search, selector

STARTS = ("linearity", "bi", "angular")


@dataclass
class _Tried:
    """Sets tried so far and their divergence; nothing is tried twice."""

    search: Search
    known: dict[tuple[int, ...], float] = field(default_factory=dict)
    stale: dict[int, float] = field(default_factory=dict)  # what adding a layer cost when last tried

    def __call__(self, removed: tuple[int, ...]) -> float:
        if removed not in self.known:
            self.known[removed] = self.search.divergence(removed)
        return self.known[removed]

    def best(self, size: int) -> tuple[int, ...]:
        """Return the best set of a size among those tried."""
        return min((s for s in self.known if len(s) == size), key=self.known.__getitem__)

    def grown(self, removed: tuple[int, ...]) -> tuple[int, ...]:
        """Return the set with one layer more, the best of the most promising `width`.

        Most promising is what cost least when it was last added; once a fresh cost is below the next stale one by far,
        the rest is not tried (costs seldom fall as a set grows).
        """
        base = self.known.get(removed, 0.0)
        order = sorted((i for i in self.search.layers if i not in removed), key=lambda i: self.stale.get(i, -math.inf))
        found: tuple[int, ...] | None = None
        for index, layer in enumerate(order):
            enough = layer in self.stale and index >= self.search.width
            if enough:
                break
            grown = tuple(sorted((*removed, layer)))
            self.stale[layer] = self(grown) - base
            if found is None or self.known[grown] < self.known[found]:
                found = grown
        assert found is not None
        return found


@selector("kl")
def kl(search: Search, count: int) -> Path:
    """Greedy on KL(dense || cut) after repair, from several starts, with look-back swaps.

    Grows a set layer by layer; at every size the sets of the cheap selectors are tried as well, and the best goes on.
    After each step from the third on, each layer removed so far is put back in turn, and where the smaller set is
    better than the best known of its size, the search goes on from there (floating search). With a width of 0 nothing
    is tried: the paper's order is taken as it is.
    """
    if not search.width:
        return SELECTORS["linearity"](search, count)
    tried = _Tried(search)
    starts = [SELECTORS[name](search, count) for name in STARTS]
    current: tuple[int, ...] = ()
    size = 0
    while size < count:
        size += 1
        tried.grown(current)
        for start in starts:
            if size > 1 and size in start:
                tried(start[size])
        current = _looked_back(tried, tried.best(size))
    return {n: tried.best(n) for n in range(1, count + 1)}


def _looked_back(tried: _Tried, removed: tuple[int, ...]) -> tuple[int, ...]:
    """Return the best set of the same size within one swap: a layer put back that is missed most, another taken."""
    if len(removed) < 3:
        return removed
    smaller = min((tuple(i for i in removed if i != back) for back in removed), key=tried)
    tried.grown(smaller)
    return tried.best(len(removed))
