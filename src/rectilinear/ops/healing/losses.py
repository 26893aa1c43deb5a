"""What a student is taught: its teacher's next-token distribution, or its teacher's stream, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rectilinear.core.distillation import TopK, kl, kl_top_k, stream_errors, top_k
from rectilinear.models.logits import next_token_logits
from rectilinear.models.stack import forward, watch
from rectilinear.ops.healing.cache import TeacherCache
from rectilinear.ops.healing.places import Place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# From the student, ids [b, w] and mask [b, w] (1 at real tokens) to each token's loss [b, w]; that of pads is anything.
Distillation = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Logits:
    """KL of next-token distributions, over the whole vocabulary or the teacher's k likeliest tokens and the rest.

    With a cache, which needs k, the teacher is asked only about windows that are not in it.
    """

    teacher: PreTrainedModel
    k: int | None
    temperature: float
    cache: TeacherCache | None = None

    def __call__(self, student: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Return KL(teacher || student) [b, w]."""
        logits = next_token_logits(student, ids, _padding(mask), 0).flatten(0, 1)
        if self.k is None:
            found = kl(logits, self._asked(ids, mask).flatten(0, 1).to(logits.device), self.temperature)
        else:
            known = self._top(ids, mask)
            rows = TopK(*(part.to(logits.device) for part in (known.values, known.indices, known.rest)))
            found = kl_top_k(logits, rows, self.temperature)
        return found.view(ids.shape)

    def _asked(self, ids: Tensor, mask: Tensor) -> Tensor:
        device = self.teacher.device
        # no_grad, not inference_mode: what comes out is saved for the student's backward pass.
        with torch.no_grad():
            return next_token_logits(self.teacher, ids.to(device), _padding(mask.to(device)), 0)

    def _top(self, ids: Tensor, mask: Tensor) -> TopK:
        """Return the teacher's top k for the rows [b * w]; those of pads are anything."""
        assert self.k is not None
        if self.cache is None:
            return top_k(self._asked(ids, mask).flatten(0, 1), self.k, self.temperature)
        sizes = mask.sum(1).tolist()
        windows = [row[:size] for row, size in zip(ids, sizes, strict=True)]
        known = [self.cache.get(window) for window in windows]
        if any(rows is None for rows in known):
            logits = self._asked(ids, mask)
            for i, window in enumerate(windows):
                if known[i] is None:
                    rows = top_k(logits[i, : sizes[i]], self.k, self.temperature)
                    self.cache.put(window, rows)
                    known[i] = rows
        found = [rows for rows in known if rows is not None]
        device = found[0].values.device
        every = TopK(
            found[0].values.new_full((*ids.shape, found[0].values.shape[1]), -torch.inf),
            torch.arange(found[0].values.shape[1], device=device).repeat(*ids.shape, 1),
            found[0].rest.new_zeros(ids.shape),  # pads: all mass on the rest, finite and masked afterwards
        )
        for i, rows in enumerate(found):
            every.values[i, : sizes[i]] = rows.values.to(device)
            every.indices[i, : sizes[i]] = rows.indices.to(device)
            every.rest[i, : sizes[i]] = rows.rest.to(device)
        return TopK(every.values.flatten(0, 1), every.indices.flatten(0, 1), every.rest.flatten())


@dataclass(frozen=True)
class Streams:
    """Squared errors of the stream after each layer of the student, against the dense stream where it stands for it."""

    teacher: PreTrainedModel
    dense: nn.ModuleList
    cut: nn.ModuleList
    places: Sequence[Place]

    def __call__(self, student: Any, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over layers and the stream's numbers of the squared error [b, w]."""
        wanted: dict[int, Tensor] = {}
        found: dict[int, Tensor] = {}
        positions = {place.position for place in self.places}

        def dense(layer: int, x: Tensor, y: Tensor) -> None:
            if layer + 1 in positions:
                wanted[layer + 1] = y

        def cut(layer: int, x: Tensor, y: Tensor) -> None:
            found[layer] = y

        device = self.teacher.device
        with torch.no_grad(), watch(self.dense, dense):
            forward(self.teacher, self.dense, ids.to(device), _padding(mask.to(device)))
        with watch(self.cut, cut):
            # The head is not wanted, but the model is called as a whole: what wraps it (mixed precision) sees to it.
            next_token_logits(student, ids, _padding(mask), ids.shape[1] - 1)
        return stream_errors(
            [found[i] for i in range(len(self.places))], [wanted[place.position] for place in self.places]
        )


def _padding(mask: Tensor) -> Tensor | None:
    """Return the mask, None where every token is real."""
    return None if bool(mask.all()) else mask
