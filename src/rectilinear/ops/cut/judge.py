"""How much a cut model has lost: divergence from the dense model, and nats, on windows of the calibration text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rectilinear.core.prediction import divergences, predictions
from rectilinear.models.runner import Runner
from rectilinear.ops.cut.streams import Chunks, rows


class Judge:
    """Compares the last position of a cut model's stream with the dense one's, on the windows ids [n, w].

    Streams may hold more windows than that; the first ones are judged.
    """

    def __init__(self, runner: Runner, ids: Tensor) -> None:
        self.runner = runner
        self.ids = ids

    def divergence(self, student: Chunks, dense: Chunks) -> float:
        """Return KL(dense || cut) in nats a token."""
        total, count = 0.0, 0
        for x, t, ids in zip(student, dense, self._parts(student), strict=False):
            every = torch.arange(ids.numel(), device=x.device)
            found, _ = divergences(rows(self.runner.logits(x)), rows(self.runner.logits(t)), every)
            total, count = total + float(found.sum()), count + len(found)
        return total / count

    def perplexity(self, student: Chunks) -> float:
        """Return exp(summed nats / summed predicted tokens) of the windows' text."""
        total, count = 0.0, 0
        for x, ids in zip(student, self._parts(student), strict=False):
            predicting = torch.arange(ids.numel(), device=x.device).reshape(ids.shape)[:, :-1].flatten()
            found, _ = predictions(rows(self.runner.logits(x)), predicting, ids[:, 1:].flatten().to(x.device))
            total, count = total + float(found.sum()), count + len(found)
        return math.exp(total / count)

    def _parts(self, student: Chunks) -> tuple[Tensor, ...]:
        return self.ids.split(student[0].shape[0])
