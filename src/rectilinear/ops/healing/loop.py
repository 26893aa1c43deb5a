"""The loop: transformers' Trainer, with a loss of our own and a learning rate that follows the budget."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import TrainingArguments

from rectilinear.data.windows import Window
from rectilinear.errors import ModelError, RectilinearError, ResultError, first_line
from rectilinear.models.mode import restored
from rectilinear.ops.healing.losses import Distillation
from rectilinear.ops.healing.recipe import Recipe
from rectilinear.ops.training.budget import Books, made_with
from rectilinear.ops.training.loop import FORWARDS, arguments, follow_budget_
from rectilinear.ops.training.saving import SavingTrainer, has_checkpoint, last_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT = 2  # checkpoints


class Distiller(SavingTrainer):
    """A Trainer whose loss is a distillation, averaged over the real tokens of all passes of a step."""

    distillation: Distillation
    loss_is_scaled_for_ga = True

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the summed loss of the batch's real tokens over those of the whole step."""
        mask = inputs["attention_mask"]
        losses = self.distillation(model, inputs["input_ids"], mask)
        loss = losses.masked_fill(mask == 0, 0).sum() / (
            mask.sum() if num_items_in_batch is None else num_items_in_batch
        )
        return (loss, {}) if return_outputs else loss


def train(
    model: PreTrainedModel,
    windows: Sequence[Window],
    distillation: Distillation,
    recipe: Recipe,
    books: Books,
    out: Path,
) -> tuple[str, ...]:
    """Train what has gradients switched on, in place, until the budget is spent; return notes on damaged checkpoints.

    out: the folder for checkpoints. Raises RectilinearError for loggers that are not there, ResultError for a
    checkpoint of another run or one that cannot be written, or where all are damaged.
    """
    checkpoint, notes = _checkpoint(recipe, books, model) if recipe.resume else (None, ())
    try:
        trainer = Distiller(
            model=model,
            args=_arguments(model, recipe, books, out),
            train_dataset=list(windows),  # type: ignore[arg-type]
            data_collator=collate,  # type: ignore[arg-type]
            callbacks=[books],
        )
    except (ImportError, ValueError, RuntimeError) as error:
        raise RectilinearError(f"cannot train with these options: {first_line(error)}") from error
    trainer.distillation = distillation
    trainer.model_accepts_loss_kwargs = True  # so that the step's tokens are counted; the loss is told, not the model
    follow_budget_(trainer, books, recipe.schedule, recipe.warmup)
    # In its own format some families' weights have other names (experts, GPT-NeoX), which the Trainer, resuming, would
    # pass over: it would go on from the old ones.
    with books.going_on(), restored(model, "save_pretrained", *FORWARDS):
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)  # type: ignore[method-assign]
        trainer.train(resume_from_checkpoint=checkpoint)
    return notes


def collate(windows: Sequence[Window]) -> dict[str, Tensor]:
    """Return windows padded on the right: input_ids, attention_mask, and labels, -100 at pads, all [b, w]."""
    longest = max(len(window.ids) for window in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, window in enumerate(windows):
        ids[i, : len(window.ids)] = torch.from_numpy(window.ids)
        mask[i, : len(window.ids)] = 1
    labels = ids.masked_fill(mask == 0, -100)
    # Labels only count a step's tokens; as shift_labels they are counted as they are.
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "shift_labels": labels}


def _arguments(model: PreTrainedModel, recipe: Recipe, books: Books, out: Path) -> TrainingArguments:
    return arguments(
        model,
        books,
        out,
        report_to=recipe.report_to,
        per_device_train_batch_size=recipe.batch,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.learning_rate,
        bf16=recipe.bf16,
        seed=recipe.seed,
        save_total_limit=KEPT,
        include_num_input_tokens_seen="non_padding",
    )


def check_checkpoints(recipe: Recipe) -> None:
    """Raise ResultError where the folder of checkpoints does not go with what is asked for."""
    if recipe.checkpoints is None:
        return
    if not recipe.resume and has_checkpoint(recipe.checkpoints):
        raise ResultError(f"{recipe.checkpoints} holds checkpoints of an earlier run: add --resume or name another")


def _checkpoint(recipe: Recipe, books: Books, model: PreTrainedModel) -> tuple[str | None, tuple[str, ...]]:
    """Return the last whole checkpoint, None where none was written, and notes on damaged ones.

    Raises ResultError where all are damaged, or it was made by another recipe.
    """
    assert recipe.checkpoints is not None
    last, notes = last_checkpoint(recipe.checkpoints, "start again with other --checkpoints")
    if last is None:
        return None, notes
    made = made_with(last, "start again with other --checkpoints")
    try:
        kept: set[str] = set()
        for file in last.glob("model*.safetensors"):
            with safe_open(file, "pt") as weights:
                kept |= set(weights.keys())
    except (OSError, SafetensorError) as error:
        raise ResultError(
            f"cannot resume from {last}: {first_line(error)}; start again with other --checkpoints"
        ) from error
    unlike = sorted(name for name in {*made, *books.facts} if made.get(name) != books.facts.get(name))
    if unlike:
        said = ", ".join(f"{name} {made.get(name)}" for name in unlike)
        raise ResultError(f"expected the options of the run to resume, which had {said}: give them again")
    strange = sorted(kept - set(model.state_dict()))
    if strange or not kept:
        raise ModelError(
            f"cannot resume {type(model).__name__}: its checkpoints name weights otherwise than it does "
            f"({strange[0] if strange else 'none'}): heal without --resume"
        )
    return str(last), notes
