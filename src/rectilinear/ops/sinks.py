"""The sink tokens of a layer, counted, and named by kind: the token and its position in the window."""

from __future__ import annotations

from dataclasses import dataclass, field

NAMED_SINKS = 1000  # distinct kinds counted per layer at most


@dataclass(frozen=True)
class Sink:
    """One kind of sink token: how often it was seen, its largest norm, and where first: batch, row in it."""

    count: int
    norm: float
    first: tuple[int, int]

    def merge(self, other: Sink) -> Sink:
        """Return the same of both sets of tokens."""
        return Sink(self.count + other.count, max(self.norm, other.norm), min(self.first, other.first))


@dataclass
class NamedSinks:
    """All sink tokens of a layer, counted; kinds: by token and position, the NAMED_SINKS seen first at most."""

    count: int = 0
    kinds: dict[tuple[int, int], Sink] = field(default_factory=dict)

    def add(self, token: int, position: int, norm: float, place: tuple[int, int]) -> None:
        """Count one sink token of a norm, at its batch and row."""
        kind, seen = (token, position), Sink(1, norm, place)
        self.count += 1
        if kind in self.kinds:
            self.kinds[kind] = self.kinds[kind].merge(seen)
        elif len(self.kinds) < NAMED_SINKS:
            self.kinds[kind] = seen

    def merge(self, other: NamedSinks) -> NamedSinks:
        """Return the same of both sets of tokens; a count is exact unless a layer has more kinds than are counted."""
        kinds = dict(self.kinds)
        for kind, sink in other.kinds.items():
            kinds[kind] = kinds[kind].merge(sink) if kind in kinds else sink
        first = sorted(kinds.items(), key=lambda item: item[1].first)[:NAMED_SINKS]
        return NamedSinks(self.count + other.count, dict(first))

    def frequent(self, most: int) -> list[tuple[tuple[int, int], Sink]]:
        """Return the kinds seen most often, `most` at most; those seen as often in the order they came."""
        return sorted(self.kinds.items(), key=lambda item: (-item[1].count, item[1].first))[:most]
