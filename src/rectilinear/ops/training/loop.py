"""What all trainings here share: the Trainer's options, and a learning rate that follows the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainingArguments

from rectilinear.errors import ModelError
from rectilinear.ops.training.budget import Books, rate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDLESS = 1 << 30  # steps, where the budget is none of steps
FORWARDS = ("forward", "_original_forward")  # what accelerate leaves on a model under mixed precision
TENTHS = tuple(
    (i + 1) / 10 for i in range(10)
)  # of the budget: when checkpoints are due that only guard against a kill


def arguments(
    model: PreTrainedModel,
    books: Books,
    out: Path,
    *,
    report_to: Sequence[str] = (),
    kind: type[TrainingArguments] = TrainingArguments,
    **own: Any,
) -> TrainingArguments:
    """Return the options of a training whose budget decides when it ends and when it saves; `own` are added.

    Raises ModelError for a model on another GPU than the first.
    """
    cuda = model.device.type == "cuda"
    if cuda and model.device.index:
        number = model.device.index
        raise ModelError(
            f"expected a model on the first GPU to train, which is where the Trainer takes it, got {model.device}: "
            f"set CUDA_VISIBLE_DEVICES={number} and give the device cuda"
        )
    found = kind(
        output_dir=str(out),
        max_steps=int(books.size) if books.kind == "steps" else ENDLESS,
        use_cpu=model.device.type == "cpu",
        logging_steps=1,  # so that a loss that is no number stops the run at its step
        logging_nan_inf_filter=False,
        log_level="error",
        disable_tqdm=True,
        report_to=list(report_to) or "none",
        save_strategy="no",  # the budget's share decides
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        **own,
    )
    if cuda:
        _ = found.device  # which counts the GPUs
        found._n_gpu = 1  # several would mean DataParallel, which copies the model away from its hooks
    return found


def follow_budget_(trainer: Trainer, books: Books, schedule: str, warmup: float) -> None:
    """Let a Trainer's learning rate follow the share of the budget that is spent, and its printing stop."""
    trainer.remove_callback(PrinterCallback)
    trainer.create_optimizer()
    assert trainer.optimizer is not None
    trainer.lr_scheduler = LambdaLR(trainer.optimizer, lambda _: rate(books.share, schedule, warmup))
