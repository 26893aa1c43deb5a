"""Spans of layers: half-open in code, "12 to 17" in words, "12-17,20" on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rectilinear.errors import RectilinearError

WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, order=True)
class Span:
    """Layers start up to, not including, stop; between stream positions of the same numbers."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __str__(self) -> str:
        if len(self) == 1:
            return f"layer {self.start}"
        return f"layers {self.start} to {self.stop - 1}"


def spans_of(layers: Iterable[int]) -> tuple[Span, ...]:
    """Return the maximal runs of neighbouring layers, in order."""
    spans: list[Span] = []
    for layer in sorted(set(layers)):
        if spans and spans[-1].stop == layer:
            spans[-1] = Span(spans[-1].start, layer + 1)
        else:
            spans.append(Span(layer, layer + 1))
    return tuple(spans)


def in_words(layers: Iterable[int]) -> str:
    """Return "layers 12 to 17, six layers", or "layer 3 and layers 12 to 14, four layers"."""
    chosen = sorted(set(layers))
    count = WORDS[len(chosen)] if len(chosen) < len(WORDS) else str(len(chosen))
    if not chosen:
        return "no layers"
    *head, last = [str(span) for span in spans_of(chosen)]
    named = f"{', '.join(head)} and {last}" if head else last
    return f"{named}, {count} layer{'s' if len(chosen) > 1 else ''}"


def parse_layers(text: str, count: int) -> tuple[int, ...]:
    """Read "12-17,20" (both ends belong to a range) as layers of a model of `count`, in order.

    Raises RectilinearError for anything else, for numbers out of range and for a layer named twice.
    """
    layers: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part)
        if match is None:
            raise RectilinearError(f"expected layers like 12-17,20, got {part!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise RectilinearError(f"expected a range of layers from low to high, got {part!r}")
        if last >= count:
            raise RectilinearError(f"expected layers from 0 to {count - 1}, got {part!r}")
        layers += range(first, last + 1)
    twice = sorted({layer for layer in layers if layers.count(layer) > 1})
    if twice:
        raise RectilinearError(f"expected each layer once, got {', '.join(map(str, twice))} more than once")
    return tuple(sorted(layers))


def chosen_layers(layers: str | Iterable[int] | None, count: int) -> tuple[int, ...]:
    """Return layers of a model of `count`, given as text like "12-17,20" or as numbers, in order; all for None.

    Raises RectilinearError as `parse_layers` does, and where none are named.
    """
    if layers is None:
        return tuple(range(count))
    found = parse_layers(layers if isinstance(layers, str) else ",".join(map(str, layers)), count)
    if not found:
        raise RectilinearError("expected layers like 12-17,20, got none")
    return found
