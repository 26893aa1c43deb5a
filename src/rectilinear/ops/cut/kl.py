"""The `kl` selector: sets of layers judged by their divergence from the dense model after their own repair."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from rectilinear.ops.cut.selectors import Path, Search, angular, bi, linearity

STARTS = (linearity, bi, angular)
SINGLES = 3  # times the width: layers tried alone, the least influential first
BACK = 2  # of the width: one removed layer of so many is put back to look for a better one


@dataclass
class _Tried:
    """Sets tried so far and their divergence, and what adding each layer cost when last tried."""

    search: Search
    known: dict[tuple[int, ...], float] = field(default_factory=lambda: {(): 0.0})
    cost: dict[int, float] = field(default_factory=dict)

    def __call__(self, removed: tuple[int, ...]) -> float:
        if removed not in self.known:
            self.known[removed] = self.search.divergence(removed)
        return self.known[removed]

    def best(self, size: int) -> tuple[int, ...]:
        """Return the best set of a size among those tried."""
        return min((s for s in self.known if len(s) == size), key=self.known.__getitem__)

    def add(self, removed: tuple[int, ...], order: list[int]) -> None:
        """Try the set with one more of the layers `order`, each in turn."""
        for layer in order:
            grown = tuple(sorted((*removed, layer)))
            self.cost[layer] = self(grown) - self(removed)

    def promising(self, removed: tuple[int, ...]) -> list[int]:
        """Return the `width` layers that cost least to add when they were last tried."""
        left = [i for i in self.search.layers if i not in removed]
        return sorted(left, key=lambda i: self.cost.get(i, math.inf))[: self.search.width]


def kl(search: Search, count: int) -> Path:
    """Grow a set greedily by KL(dense || cut) after repair, from several starts, with look-back swaps.

    Each set is repaired from the dense weights. First the least influential layers are tried alone; then at every size
    the layers that cost least when last tried are added, the sets of the cheap selectors are tried as well, and the
    best of all goes on, after the layers that were dear to remove have been exchanged for others where that is better.
    With a width of 0 nothing is tried: the paper's order is taken as it is.
    """
    if not search.width:
        return linearity(search, count)
    tried = _Tried(search)
    starts = [select(search, count) for select in STARTS]
    singles = bi(search, len(search.layers))
    tried.add((), _order(singles)[: SINGLES * search.width])
    for size in range(2, count + 1):
        current = tried.best(size - 1)
        tried.add(current, tried.promising(current))
        for start in starts:
            if size in start:
                tried(start[size])
        _swap(tried, tried.best(size))
    return {size: tried.best(size) for size in range(1, count + 1)}


def _swap(tried: _Tried, removed: tuple[int, ...]) -> None:
    """Put back the layers that were dear to remove, each in turn, and take others from there."""
    dear = sorted(removed, key=lambda i: -tried.cost.get(i, math.inf))[: tried.search.width // BACK]
    smaller = [tuple(i for i in removed if i != back) for back in dear]
    better = [s for s in smaller if tried(s) <= tried(tried.best(len(s)))]
    for base in better:
        tried.add(base, tried.promising(base))


def _order(path: Path) -> list[int]:
    """Return the layers in the order in which a nested path takes them."""
    taken: list[int] = []
    for size in sorted(path):
        taken += [i for i in path[size] if i not in taken]
    return taken
