"""One pass of one or several models over windows: what their predictions cost, window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rectilinear.core.prediction import divergences, predictions
from rectilinear.data.windows import Batch, Window, window_batches
from rectilinear.errors import ModelError, NonFiniteError
from rectilinear.models.load import model_id
from rectilinear.models.logits import next_token_logits
from rectilinear.models.mode import eval_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Sums:
    """Sums over the predicted tokens of each window, all [n] float64.

    nats; hits: tokens that were the most likely one; divergence and agree: from a reference model, zeros without one.
    """

    nats: Tensor
    hits: Tensor
    divergence: Tensor
    agree: Tensor

    @classmethod
    def empty(cls, windows: int) -> Sums:
        """Return zeros."""
        return cls(*(torch.zeros(windows, dtype=torch.float64) for _ in range(4)))


def predict(
    models: Sequence[PreTrainedModel],
    windows: Sequence[Window],
    *,
    reference: bool,
    batch_tokens: int,
    advance: Callable[[int, list[Sums]], None],
) -> list[Sums]:
    """Run all models over the same windows, batch by batch in turn; no logits outlive their batch.

    With `reference` the first model is what the others are compared to: its logits serve them all. `advance` is told
    the tokens that each model read, and the sums so far. Raises NonFiniteError for logits that are not finite,
    ModelError where vocabularies differ.
    """
    for model in models:
        _check_ids(model, windows)
    sums = [Sums.empty(len(windows)) for _ in models]
    with torch.inference_mode(), eval_mode(*models):
        for batch in window_batches(windows, batch_tokens):
            start = int(batch.first.min()) - 1
            place, row, target = _targets(batch, start)
            kept: Tensor | None = None
            for model, total in zip(models, sums, strict=True):
                logits = _logits(model, batch, start)
                rows = row.to(logits.device)
                nats, hits = predictions(logits, rows, target.to(logits.device))
                _check_finite(nats, model, windows, place)
                total.nats.index_add_(0, place, nats)
                total.hits.index_add_(0, place, hits.double())
                if kept is not None:
                    _check_vocabulary(models[0], kept, model, logits)
                    divergence, agree = divergences(logits, kept, rows)
                    total.divergence.index_add_(0, place, divergence)
                    total.agree.index_add_(0, place, agree.double())
                elif reference:
                    kept = logits
                del logits
                advance(int(batch.mask.sum()), sums)
    return sums


def _logits(model: PreTrainedModel, batch: Batch, start: int) -> Tensor:
    """Return logits [b * (w - start), v]."""
    ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
    padded = None if bool(mask.all()) else mask.long().to(model.device)
    return next_token_logits(model, ids.to(model.device), padded, start).flatten(0, 1)


def _targets(batch: Batch, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each predicted token its window's index, the row of logits that predicts it, and the token, each [n].

    The row counts from position `start` of each window on.
    """
    ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
    positions = torch.arange(ids.shape[1])
    window, position = torch.nonzero(mask & (positions >= torch.from_numpy(batch.first)[:, None]), as_tuple=True)
    row = window * (ids.shape[1] - start) + position - 1 - start
    return torch.from_numpy(batch.index)[window], row, ids[window, position]


def _check_ids(model: PreTrainedModel, windows: Sequence[Window]) -> None:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    known = weight.shape[0]
    highest = max(int(window.ids.max()) for window in windows)
    if highest >= known:
        raise ModelError(
            f"expected token ids below {known}, the vocabulary of {model_id(model)}, got {highest}: "
            "the tokenizer belongs to another model"
        )


def _check_finite(nats: Tensor, model: PreTrainedModel, windows: Sequence[Window], place: Tensor) -> None:
    finite = torch.isfinite(nats)
    if not bool(finite.all()):
        document = windows[int(place[(~finite).nonzero()[0]])].document
        raise NonFiniteError(
            f"{model_id(model)} gave NaN or infinite logits in document {document}: use another --dtype "
            "(bfloat16 or float32), or leave the document out"
        )


def _check_vocabulary(first: PreTrainedModel, kept: Tensor, model: PreTrainedModel, logits: Tensor) -> None:
    if kept.shape[1] != logits.shape[1]:
        raise ModelError(
            f"expected the vocabulary of the reference {model_id(first)}, {kept.shape[1]} tokens, got "
            f"{logits.shape[1]} of {model_id(model)}: name a reference with the same tokenizer"
        )
