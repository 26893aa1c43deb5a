"""The loop: a LinearityTrainer whose learning rate follows the budget, and what happens at each checkpoint."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from rectilinear.errors import NonFiniteError, RectilinearError, first_line
from rectilinear.ops.pretraining.corpus import Collate
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.ops.training.budget import Books, rate
from rectilinear.ops.training.trainer import LinearityTrainer
from rectilinear.results import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ENDLESS = 1 << 30  # steps, where the budget is minutes
DECAY, BETAS = 0.1, (0.9, 0.95)  # of AdamW: usual where a model starts from nothing
TENTHS = tuple((i + 1) / 10 for i in range(10))

OnJudge = Callable[[], tuple[float, float | None]]


class Pretrainer(LinearityTrainer):
    """A LinearityTrainer that knows how much of its budget is spent."""

    books: Books

    @property
    def share(self) -> float:
        """The share of the budget that is spent."""
        return self.books.share


class Judge(TrainerCallback, ExportableState):
    """At each checkpoint: what the model is worth on held-out documents, logged before it is saved.

    judge: gives nats a token and bits a byte. Checkpoints at `marks` (shares of the budget) stay; those between serve
    to go on after a kill, and go when the next one is there.
    """

    def __init__(self, judge: OnJudge, books: Books, marks: tuple[float, ...]) -> None:
        self.judge = judge
        self.books = books
        self.marks = marks
        self.trainer: Pretrainer
        self.checkpoints: list[Checkpoint] = []
        self.passing: list[str] = []  # folders that go with the next checkpoint

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        kept = [[c.folder, c.step, c.tokens, c.loss, c.bits_per_byte] for c in self.checkpoints]
        return {"args": {}, "attributes": {"checkpoints": kept, "passing": self.passing}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up what a checkpoint kept."""
        kept = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.checkpoints = [Checkpoint(*values) for values in kept["checkpoints"]]
        self.passing = list(kept["passing"])

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Judge a model that is about to be saved; raises NonFiniteError where its weights are no numbers."""
        if not control.should_save or "loss" not in given["logs"]:
            return
        try:
            loss, bits = self.judge()
        except NonFiniteError as error:
            raise NonFiniteError(
                f"the weights were NaN or infinite after step {state.global_step}: use a lower --lr; checkpoints "
                "before it are good"
            ) from error
        found = Checkpoint(f"checkpoint-{state.global_step}", state.global_step, self.books.tokens, loss, bits)
        if bisect_right(self.marks, self.books.share) > len(self.checkpoints):
            self.checkpoints.append(found)
        else:
            self.passing.append(found.folder)
        self.trainer.log({"heldout_loss": loss, **({} if bits is None else {"heldout_bits_per_byte": bits})})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop checkpoints that only served to go on from, now that there is a later one."""
        for folder in self.passing:
            if folder != f"checkpoint-{state.global_step}":
                shutil.rmtree(Path(args.output_dir) / folder, ignore_errors=True)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: np.ndarray,
    recipe: Recipe,
    books: Books,
    judge: Judge,
    out: Path,
    *,
    resume: str | None,
    report_to: tuple[str, ...],
) -> list[float]:
    """Train a model in place on windows [n, window] until the budget is spent, with checkpoints in `out`.

    Returns the weighted penalty of each step, 0 where there is none.

    Raises RectilinearError for loggers that are not there, NonFiniteError where the loss is no number.
    """
    try:
        trainer = Pretrainer(
            model=model,
            args=_arguments(model, recipe, books, out, report_to),
            train_dataset=list(windows),
            data_collator=Collate(int(tokenizer.eos_token_id)),  # type: ignore[arg-type]
            processing_class=tokenizer,
            callbacks=[books, judge],
            penalty=recipe.added,
        )
    except (ImportError, ValueError, RuntimeError) as error:
        raise RectilinearError(f"cannot train with these options: {first_line(error)}") from error
    trainer.remove_callback(PrinterCallback)
    trainer.books = books
    judge.trainer = trainer
    trainer.create_optimizer()
    assert trainer.optimizer is not None
    trainer.lr_scheduler = LambdaLR(trainer.optimizer, lambda _: rate(books.share, "cosine", recipe.warmup))
    trainer.train(resume_from_checkpoint=resume)
    return [entry.get("penalty", 0.0) for entry in trainer.state.log_history if "loss" in entry]


def _arguments(
    model: PreTrainedModel, recipe: Recipe, books: Books, out: Path, report_to: tuple[str, ...]
) -> TrainingArguments:
    shape = recipe.shape
    cuda = model.device.type == "cuda"
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=int(books.size) if books.kind == "steps" else ENDLESS,
        per_device_train_batch_size=shape.batch,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=shape.rate,
        weight_decay=DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        bf16=cuda if recipe.bf16 is None else recipe.bf16,
        seed=recipe.seed,
        data_seed=recipe.data_seed,
        use_cpu=model.device.type == "cpu",
        logging_steps=1,  # so that a loss that is no number stops the run at its step
        logging_nan_inf_filter=False,
        log_level="error",
        disable_tqdm=True,
        report_to=list(report_to) or "none",
        save_strategy="no",  # the budget's share decides
        include_num_input_tokens_seen="all",
        remove_unused_columns=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=cuda,
    )
    if cuda:
        _ = arguments.device  # which counts the GPUs
        arguments._n_gpu = 1  # several would mean DataParallel, which copies the model away from its hooks
    return arguments
