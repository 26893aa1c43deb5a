"""What a model is fine-tuned on, as ids: texts with a class, or pairs with one preferred; and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rectilinear.data.pieces import Piece, batches
from rectilinear.data.preferences import Pairs
from rectilinear.data.tasks import Task
from rectilinear.data.tokens import encode
from rectilinear.errors import ModelError, TextError
from rectilinear.models.mode import eval_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Lesson = tuple[np.ndarray, ...]  # the ids of a text, or of the preferred one and the other


@dataclass(frozen=True)
class Lessons:
    """Texts as ids. labels: their classes, None for pairs; pad: an id that no text holds; truncated: texts cut short.

    A head on the last real token takes for padding what has the id of padding, so this id must stand nowhere else.
    """

    train: tuple[Lesson, ...]
    test: tuple[Lesson, ...]
    train_labels: tuple[int, ...] | None
    test_labels: tuple[int, ...] | None
    pad: int
    truncated: int

    @property
    def outputs(self) -> int:
        """Numbers that the head gives: one a class, or the reward."""
        return 1 if self.test_labels is None else 2


def lessons(source: Task | Pairs, tokenizer: PreTrainedTokenizerBase, model_vocabulary: int, window: int) -> Lessons:
    """Return the examples as at most `window` ids each.

    Of a text with a class the end is cut off, which is its passage's; of a pair the beginning, which both share.
    Raises TextError for a text without tokens, ModelError where no id is left for padding.
    """
    cut = 0
    train: tuple[Lesson, ...]
    test: tuple[Lesson, ...]

    def ids(text: str, *, end: bool) -> np.ndarray:
        nonlocal cut
        found = encode(tokenizer, text).ids
        if not len(found):
            raise TextError(f"expected an example of a token or more, got none for {text[:40]!r}")
        cut += len(found) > window
        return found[-window:] if end else found[:window]

    labels: tuple[Any, Any] = (None, None)
    if isinstance(source, Pairs):
        train, test = (
            tuple((ids(pair.chosen, end=True), ids(pair.rejected, end=True)) for pair in part)
            for part in (source.train, source.test)
        )
    else:
        train, test = (
            tuple((ids(example.text, end=False),) for example in part) for part in (source.train, source.test)
        )
        labels = tuple(e.label for e in source.train), tuple(e.label for e in source.test)
    every = [row for lesson in (*train, *test) for row in lesson]
    used = set(np.unique(np.concatenate(every)).tolist())
    wanted = (getattr(tokenizer, "pad_token_id", None), *range(min(model_vocabulary, len(tokenizer)) - 1, -1, -1))
    pad = next((i for i in wanted if i is not None and i not in used and i < model_vocabulary), None)
    if pad is None:
        raise ModelError("expected an id of the vocabulary that no example holds, for padding, got none: use fewer")
    return Lessons(train, test, *labels, pad, cut)


def padded(rows: Sequence[np.ndarray], pad: int) -> dict[str, Tensor]:
    """Return ids padded on the right: input_ids and attention_mask, both [b, w]."""
    ids = torch.full((len(rows), max(map(len, rows))), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row)
        mask[number, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def accuracy(
    model: PreTrainedModel, known: Lessons, *, batch_tokens: int, advance: Callable[[int], None] = lambda done: None
) -> float:
    """Return the share of test examples that the model classes rightly, or pairs that it orders as people did.

    `advance` is told the texts of each batch.
    """
    rows = [row for lesson in known.test for row in lesson]
    outputs = torch.empty(len(rows), known.outputs)
    with torch.inference_mode(), eval_mode(model):
        for number, values in _outputs(model, rows, known.pad, batch_tokens):
            outputs[number] = values
            advance(len(number))
    if known.test_labels is None:
        chosen, rejected = outputs[0::2, 0], outputs[1::2, 0]
        return float((chosen > rejected).double().mean())
    return float((outputs.argmax(1) == torch.tensor(known.test_labels)).double().mean())


def _outputs(
    model: PreTrainedModel, rows: Sequence[np.ndarray], pad: int, batch_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches([Piece(number, 0, row) for number, row in enumerate(rows)], batch_tokens):
        numbers = torch.from_numpy(batch.document)
        inputs = padded([rows[number] for number in numbers.tolist()], pad)
        logits = model(**{name: tensor.to(model.device) for name, tensor in inputs.items()}).logits
        yield numbers, logits.float().cpu()
