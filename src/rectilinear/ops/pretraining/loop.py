"""The loop: a LinearityTrainer whose learning rate follows the budget, and what happens at each checkpoint."""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import ExportableState

from rectilinear.errors import NonFiniteError, RectilinearError, first_line
from rectilinear.ops.pretraining.corpus import Collate, Corpus
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.ops.training.budget import Books
from rectilinear.ops.training.callback import LinearityCallback
from rectilinear.ops.training.loop import arguments, follow_budget_
from rectilinear.ops.training.saving import SavingTrainer
from rectilinear.ops.training.trainer import LinearityTrainer
from rectilinear.results import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DECAY, BETAS = 0.1, (0.9, 0.95)  # of AdamW: usual where a model starts from nothing

OnJudge = Callable[[], tuple[float, float | None]]


class Pretrainer(SavingTrainer, LinearityTrainer):
    """A LinearityTrainer that knows how much of its budget is spent."""

    books: Books

    @property
    def share(self) -> float:
        """The share of the budget that is spent."""
        return self.books.share

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save a model that generates with a cache: in training the Trainer switches it off."""
        config: Any = cast("PreTrainedModel", self.model).config
        before, config.use_cache = config.use_cache, True
        super().save_model(output_dir, _internal_call)
        config.use_cache = before


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
        self._reached = 0  # of the marks

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        kept = [[c.folder, c.step, c.tokens, c.loss, c.bits_per_byte] for c in self.checkpoints]
        return {"args": {}, "attributes": {"checkpoints": kept, "passing": self.passing}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up what a checkpoint kept."""
        kept = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.checkpoints = [Checkpoint(*values) for values in kept["checkpoints"]]
        self.passing = list(kept["passing"])
        self._reached = bisect_right(self.marks, self.books.mark)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Judge a model that is about to be saved; raises NonFiniteError where its weights are no numbers."""
        if not control.should_save or "loss" not in given["logs"]:
            return
        folder = f"checkpoint-{state.global_step}"
        reached = bisect_right(self.marks, self.books.mark)
        passing = reached == self._reached and not control.should_training_stop
        self._reached = reached
        if passing:
            self.passing.append(folder)
        if passing and self.books.leaving.asked:
            return  # there is no time to judge what only serves to go on from
        try:
            loss, bits = self.judge()
        except NonFiniteError as error:
            raise NonFiniteError(
                f"the weights were NaN or infinite after step {state.global_step}: use a lower --lr; checkpoints "
                "before it are kept"
            ) from error
        if not passing:
            self.checkpoints.append(Checkpoint(folder, state.global_step, self.books.tokens, loss, bits))
        self.trainer.log({"heldout_loss": loss, **({} if bits is None else {"heldout_bits_per_byte": bits})})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop checkpoints that only served to go on from, now that there is a later one."""
        for folder in self.passing:
            if folder != f"checkpoint-{state.global_step}":
                shutil.rmtree(Path(args.output_dir) / folder, ignore_errors=True)


def train(
    model: PreTrainedModel,
    text: Corpus,
    recipe: Recipe,
    books: Books,
    judge: Judge,
    out: Path,
    *,
    resume: str | None,
    report_to: Sequence[str],
) -> list[float]:
    """Train a model in place until the budget is spent; `out` gets checkpoints and linearity profiles.

    resume: the checkpoint to go on from. Returns the weighted penalty of each step, 0 where there is none.
    Raises RectilinearError for loggers that are not there, NonFiniteError where the loss is no number, ResultError for
    a checkpoint that cannot be written.
    """
    try:
        trainer = Pretrainer(
            model=model,
            args=_arguments(model, recipe, books, out, report_to),
            train_dataset=list(text.windows),
            data_collator=Collate(int(text.tokenizer.eos_token_id)),  # type: ignore[arg-type]
            processing_class=text.tokenizer,
            callbacks=[books, judge],
            penalty=recipe.added,
        )
    except (ImportError, ValueError, RuntimeError) as error:
        raise RectilinearError(f"cannot train with these options: {first_line(error)}") from error
    trainer.books = books
    judge.trainer = trainer
    follow_budget_(trainer, books, "cosine", recipe.warmup)
    longest = max(len(window.ids) for window in text.judged)
    trainer.add_callback(LinearityCallback(trainer, text.heldout, every=recipe.profile, window=longest))
    with books.going_on():
        trainer.train(resume_from_checkpoint=resume)
    return [entry.get("penalty", 0.0) for entry in trainer.state.log_history if "loss" in entry]


def _arguments(
    model: PreTrainedModel, recipe: Recipe, books: Books, out: Path, report_to: Sequence[str]
) -> TrainingArguments:
    return arguments(
        model,
        books,
        out,
        report_to=report_to,
        per_device_train_batch_size=recipe.shape.batch,
        gradient_accumulation_steps=recipe.accumulate,
        learning_rate=recipe.shape.rate,
        weight_decay=DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        bf16=model.device.type == "cuda" if recipe.bf16 is None else recipe.bf16,
        seed=recipe.seed,
        data_seed=recipe.data_seed,
        include_num_input_tokens_seen="all",
        dataloader_drop_last=True,
    )
