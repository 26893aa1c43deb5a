"""Attention and MLP scored apart: each submodule's contribution as a function of the stream it reads."""

from __future__ import annotations

from torch import Tensor

from rectilinear.ops.layers import Gatherer
from rectilinear.ops.pair import Pair


class Submodules:
    """One pair per layer and submodule: attention on the layer's input, MLP on the stream it reads."""

    def __init__(self, gatherer: Gatherer) -> None:
        self.pairs: dict[tuple[int, str], Pair] = {}
        self.ratios: dict[tuple[int, str], list[float]] = {}
        self.exact: dict[int, bool] = {}
        self._gatherer = gatherer

    def on_parts(self, index: int, x: Tensor, a: Tensor, h: Tensor, m: Tensor, exact: bool) -> None:
        """Take in a layer's input x, attention's contribution a, the MLP's input stream h and contribution m."""
        rows, sinks = self._gatherer.rows, self._gatherer.sinks
        self.exact[index] = exact
        for name, source, contribution in (("attention", x, a), ("mlp", h, m)):
            x_rows, z_rows = rows.of(source), rows.of(contribution)
            key = (index, name)
            if key not in self.pairs:
                self.pairs[key] = Pair(x_rows.shape[1], x_rows.device)
                self.ratios[key] = [0.0, 0.0]
            pair = self.pairs[key]
            if rows.block is not None:
                pair.judge(x_rows, z_rows, rows.block.to(x_rows.device), sinks)
            pair.update(x_rows, z_rows, sinks)
            after = (x_rows + z_rows).norm(dim=1).clamp(min=1e-30)
            self.ratios[key][0] += float((z_rows.norm(dim=1) / after).sum())
            self.ratios[key][1] += len(after)
