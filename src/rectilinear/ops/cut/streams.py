"""The dense model's stream on the calibration windows: what every repair aims at and every judgement compares with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from rectilinear.models.runner import Runner

Chunks = list[Tensor]  # one position of the stream, window batch by window batch, each [b, w, d]


class Teacher:
    """Gives the dense stream at any position, advancing from the nearest one below that it holds.

    Holds every position that it has passed while `keep` is true (a search asks for them again and again), else only
    the last one (a single repair goes through the layers once): positions + 1 or 1 times n * d numbers.
    """

    def __init__(self, runner: Runner, ids: Tensor, *, batch: int, keep: bool) -> None:
        self.runner = runner
        self.keep = keep
        self.tokens = ids.numel()
        self._held: dict[int, Chunks] = {0: [runner.embed(part) for part in ids.split(batch)]}

    def at(self, position: int) -> Chunks:
        """Return the stream at `position`; without `keep`, no lower position can be had afterwards."""
        start = max(p for p in self._held if p <= position)
        chunks = self._held[start]
        for index in range(start, position):
            chunks = [self.runner.layer(index, x) for x in chunks]
            if self.keep:
                self._held[index + 1] = chunks
        if not self.keep:
            self._held = {position: chunks}
        return chunks

    def first(self, batches: int) -> Teacher:
        """Return a teacher of the first window batches alone, which shares the streams that this one holds."""
        part = copy.copy(self)
        part._held = {position: chunks[:batches] for position, chunks in self._held.items()}
        return part


def rows(x: Tensor) -> Tensor:
    """Return a stream [b, w, d] as rows [n, d]."""
    return x.reshape(-1, x.shape[-1])


def token_weights(target: Tensor) -> Tensor:
    """Return 1 / ||target||^2 for rows [n, d]: squared error relative to the stream, so that no sink outweighs all."""
    squares = target.float().square().sum(1)
    return 1 / squares.clamp(min=torch.finfo(torch.float32).tiny)
