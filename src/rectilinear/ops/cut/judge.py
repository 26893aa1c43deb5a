"""How much a cut model has lost: divergence from the dense model, and nats, on windows of the calibration text."""

from __future__ import annotations

import torch
from torch import Tensor

from rectilinear.core.prediction import divergences, predictions
from rectilinear.models.runner import Runner
from rectilinear.ops.cut.streams import Chunks, Teacher, rows


class Judge:
    """Compares a cut model's last stream position with the dense one's, on the first `windows` of each stream."""

    def __init__(self, runner: Runner, teacher: Teacher, ids: Tensor, windows: int) -> None:
        self.runner = runner
        self.teacher = teacher
        self.ids = ids[:windows]
        self.windows = windows

    def divergence(self, student: Chunks) -> float:
        """Return KL(dense || cut) in nats a token."""
        total, count = 0.0, 0
        layers = len(self.runner.stack)
        for x, t, ids in self._parts(student, self.teacher.at(layers)):
            logits, dense = self.runner.logits(x), self.runner.logits(t)
            every = torch.arange(ids.numel(), device=logits.device)
            found, _ = divergences(rows(logits), rows(dense), every)
            total, count = total + float(found.sum()), count + len(found)
        return total / count

    def nats(self, student: Chunks) -> float:
        """Return the cross-entropy of the text under the cut model, in nats a token."""
        total, count = 0.0, 0
        for x, _, ids in self._parts(student, student):
            logits = self.runner.logits(x)
            predicting = torch.arange(ids.numel(), device=logits.device).reshape(ids.shape)[:, :-1].flatten()
            found, _ = predictions(rows(logits), predicting, ids[:, 1:].flatten().to(logits.device))
            total, count = total + float(found.sum()), count + len(found)
        return total / count

    def _parts(self, student: Chunks, dense: Chunks) -> list[tuple[Tensor, Tensor, Tensor]]:
        size = student[0].shape[0]
        return list(zip(student, dense, self.ids.split(size), strict=False))
