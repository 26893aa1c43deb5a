"""Attention and MLP scored apart: each submodule's contribution as a function of the stream it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rectilinear.ops.layers import Gatherer
from rectilinear.ops.pair import Flow, Pair

NAMES = ("attention", "mlp")


@dataclass
class Part:
    """One submodule of one layer. ratio_sum: of `count` norm ratios."""

    pair: Pair
    ratio_sum: float = 0.0
    count: int = 0

    def merge(self, other: Part) -> Part:
        """Return the part as both sets of tokens show it."""
        return Part(self.pair.merge(other.pair), self.ratio_sum + other.ratio_sum, self.count + other.count)


class Submodules:
    """One pair per layer and submodule: attention on the layer's input, MLP on the stream it reads."""

    def __init__(self, gatherer: Gatherer, kinds: Sequence[str] = ()) -> None:
        """kinds: the names of the layers' classes, to tell of those that have no submodules."""
        self.kinds = tuple(kinds)
        self.parts: dict[tuple[int, str], Part] = {}
        self._gatherer = gatherer
        gatherer.at_once = True  # its sinks are asked for when a layer has passed

    def on_parts(self, index: int, x: Tensor, a: Tensor, h: Tensor, m: Tensor, exact: bool) -> None:
        """Take in a layer's input x, attention's contribution a, the MLP's input stream h and contribution m."""
        if index not in self._gatherer.measured:
            return
        rows, sinks = self._gatherer.rows, self._gatherer.sinks
        for name, source, contribution in zip(NAMES, (x, h), (a, m), strict=True):
            flow = Flow.adding(rows.of(source), rows.of(contribution))
            device = flow.x.device
            if (index, name) not in self.parts:
                self.parts[index, name] = Part(Pair(flow.x.shape[1], device))
            part = self.parts[index, name]
            if part.pair.device != device:
                part.pair = part.pair.to(device)
            if rows.block is not None:
                part.pair.judge(flow, rows.block_on(device), sinks)
            part.pair.update(flow, sinks)
            self._gatherer.hold(part.pair)
            part.ratio_sum += float((flow.z_norm / flow.y_norm.clamp(min=1e-30)).sum())
            part.count += len(flow.z_norm)

    def pairs(self) -> list[Pair]:
        """Return the pair of every submodule."""
        return [part.pair for part in self.parts.values()]

    def merge_(self, key: tuple[int, str], other: Part) -> None:
        """Add what another one has gathered of a layer's submodule from other tokens."""
        part = self.parts[key] = self.parts[key].merge(other) if key in self.parts else other
        self._gatherer.hold(part.pair)

    def empty_(self) -> None:
        """Forget all tokens, and keep shifts and maps."""
        self.parts = {key: Part(part.pair.emptied()) for key, part in self.parts.items()}
