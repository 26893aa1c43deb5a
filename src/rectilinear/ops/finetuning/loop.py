"""The loop: transformers' Trainer on texts with a class, TRL's reward trainer on pairs."""

from __future__ import annotations

import copy
import importlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Trainer

from rectilinear.errors import RectilinearError, first_line
from rectilinear.models.mode import restored
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.finetuning.lessons import Lessons, padded
from rectilinear.ops.finetuning.recipe import FinetuneRecipe
from rectilinear.ops.healing.training import Chosen, adapted, peft_lora, training
from rectilinear.ops.training.budget import Books
from rectilinear.ops.training.loop import FORWARDS, arguments, follow_budget_

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SCHEDULE = "cosine"


def check_installed(recipe: FinetuneRecipe, *, pairs: bool) -> None:
    """Raise RectilinearError, naming the extra, where a package that the training needs is missing."""
    if pairs:
        _trl()
    if recipe.method == "lora":
        peft_lora()


def picked(model: PreTrainedModel, recipe: FinetuneRecipe) -> Chosen:
    """Return what trains: every parameter, or adapters in the layers and the head."""
    if recipe.method == "full":
        return Chosen(tuple(model.parameters()))
    inner = {id(parameter) for parameter in model.base_model.parameters()}
    head = tuple(parameter for parameter in model.parameters() if id(parameter) not in inner)
    adapters = adapted(decoder_stack(model, recipe.layers_path), recipe.rank)
    return Chosen(head, adapters.modules, adapters.rank)


def train_(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    known: Lessons,
    recipe: FinetuneRecipe,
    books: Books,
    seed: int,
) -> None:
    """Train a model in place until the budget is spent; adapters are merged.

    Raises NonFiniteError where the loss is no number, RectilinearError where the Trainer refuses the options.
    """
    cached, mode = model.config.use_cache, model.training
    torch.manual_seed(seed)  # adapters start from random numbers
    with tempfile.TemporaryDirectory() as out, training(model, picked(model, recipe)):
        try:
            trainer = _trainer(model, tokenizer, known, recipe, books, Path(out), seed)
        except (ImportError, ValueError, RuntimeError) as error:
            raise RectilinearError(f"cannot train with these options: {first_line(error)}") from error
        trainer.model_accepts_loss_kwargs = False  # the loss is a pass' mean: the Trainer divides by the passes
        follow_budget_(trainer, books, SCHEDULE, recipe.warmup)
        try:
            with restored(model, *FORWARDS):
                trainer.train()
        finally:
            model.config.use_cache = cached  # the Trainer's own is off
            model.train(mode)


def _trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    known: Lessons,
    recipe: FinetuneRecipe,
    books: Books,
    out: Path,
    seed: int,
) -> Trainer:
    shared: dict[str, Any] = {
        "per_device_train_batch_size": recipe.batch,
        "gradient_accumulation_steps": recipe.accumulate,
        "learning_rate": recipe.learning_rate,
        "bf16": recipe.bf16,
        "seed": seed,
        "include_num_input_tokens_seen": "non_padding",
    }
    if known.train_labels is None:
        return _reward_trainer(model, tokenizer, known, books, out, shared)
    rows = [{"ids": ids, "label": label} for (ids,), label in zip(known.train, known.train_labels, strict=True)]
    return Trainer(
        model=model,
        args=arguments(model, books, out, **shared),
        train_dataset=rows,  # type: ignore[arg-type]
        data_collator=_collator(known.pad),
        callbacks=[books],
    )


def _collator(pad: int) -> Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]]:
    def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return {**padded([row["ids"] for row in rows], pad), "labels": torch.tensor([row["label"] for row in rows])}

    return collate


def _reward_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    known: Lessons,
    books: Books,
    out: Path,
    shared: dict[str, Any],
) -> Trainer:
    """Return TRL's trainer: the loss of Bradley and Terry, -log sigmoid(reward of chosen - reward of rejected)."""
    trl = _trl()
    from datasets import Dataset

    class Rewarder(trl.RewardTrainer):  # type: ignore[misc, name-defined]
        def _send_telemetry(self) -> None:
            """Say nothing: TRL would report the model's kind and the settings to the Hub."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL sets this one by the name that transformers gives up
        options = arguments(
            model,
            books,
            out,
            kind=trl.RewardConfig,
            max_length=None,  # cut already, and not dropped
            disable_dropout=False,
            gradient_checkpointing=False,
            **shared,
        )
    padding = copy.deepcopy(tokenizer)  # the user's keeps its own
    padding.pad_token = tokenizer.convert_ids_to_tokens(known.pad)
    rows = [{"chosen_ids": a.tolist(), "rejected_ids": b.tolist()} for a, b in known.train]
    return Rewarder(
        model=model,
        args=options,
        train_dataset=Dataset.from_list(rows),
        processing_class=padding,
        callbacks=[books],
    )


def _trl() -> Any:
    try:
        return importlib.import_module("trl")
    except ImportError as error:
        raise RectilinearError(
            "expected the package trl for reward models, got none: pip install 'rectilinear[reward]'"
        ) from error
