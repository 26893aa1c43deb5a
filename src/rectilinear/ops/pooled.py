"""One vector an example at every position of the stream, from one forward pass, kept on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rectilinear.data.pieces import Piece, batches
from rectilinear.errors import NonFiniteError
from rectilinear.models.mode import eval_mode
from rectilinear.models.stack import decoder_stack, forward, watch, width

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def mean_of(stream: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [b, d] over the real tokens of a stream [b, w, d]; mask [b, w] is True at them."""
    weight = mask.unsqueeze(-1).float()
    return (stream.float() * weight).sum(1) / weight.sum(1)


def last_of(stream: Tensor, mask: Tensor) -> Tensor:
    """Return the last real token [b, d] of a stream [b, w, d] padded on the right; mask [b, w] is True at real ones."""
    return stream[torch.arange(len(stream), device=stream.device), mask.sum(1) - 1].float()


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean_of, "last": last_of}


@contextmanager
def pooled(
    model: PreTrainedModel,
    examples: Sequence[np.ndarray],
    pooling: str,
    *,
    batch_tokens: int,
    layers_path: str | None = None,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Iterator[np.ndarray]:
    """Give the pooled stream [L + 1, n, d] float32 of n examples (ids [w] each), as a temporary file mapped to memory.

    Position 0 enters layer 0, position L is the raw output of the last layer. `advance` is told the tokens of each
    batch. Raises ModelError where the decoder stack is not found, NonFiniteError for NaN or infinite activations.
    """
    stack = decoder_stack(model, layers_path)
    pool = POOLINGS[pooling]
    shape = (len(stack) + 1, len(examples), width(model))
    with tempfile.TemporaryDirectory(prefix="rectilinear-") as folder:
        found = np.memmap(Path(folder) / "pooled.f32", dtype=np.float32, mode="w+", shape=shape)
        mask: Tensor
        rows: np.ndarray

        def keep(position: int, stream: Tensor) -> None:
            values = pool(stream, mask.to(stream.device))
            if not bool(torch.isfinite(values).all()):
                bad = rows[int((~torch.isfinite(values).all(1)).nonzero()[0])]
                raise NonFiniteError(
                    f"position {position} of the stream was NaN or infinite in example {bad}: use another --dtype "
                    "(bfloat16 or float32), or leave the example out"
                )
            found[position, rows] = values.cpu().numpy()

        def on_layer(index: int, x: Tensor, y: Tensor) -> None:
            if index == 0:
                keep(0, x)
            keep(index + 1, y)

        pieces = [Piece(number, 0, ids) for number, ids in enumerate(examples)]
        with torch.inference_mode(), eval_mode(model), watch(stack, on_layer):
            for batch in batches(pieces, batch_tokens):
                mask, rows = torch.from_numpy(batch.mask), batch.document
                ids = torch.from_numpy(batch.ids).to(model.device)
                forward(model, stack, ids, None if batch.mask.all() else mask.long().to(model.device))
                advance(int(batch.mask.sum()))
        yield found
