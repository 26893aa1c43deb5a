"""transformers' Trainer with a penalty on the stream beside the model's own loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import Trainer

from rectilinear.errors import ModelError
from rectilinear.models.stack import decoder_stack, recorded
from rectilinear.ops.training.penalty import Penalty

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LinearityTrainer(Trainer):
    """A Trainer that adds a penalty to the training loss; evaluation losses stay the model's own.

    penalty: None trains as Trainer does. layers_path: where the decoder stack is not found by itself. The rest as for
    Trainer. Over the passes of a step the penalty is the mean weighted by their real tokens (each process by itself).
    The logged `loss` is the sum of both; `penalty`, its weighted part, is logged beside it.

    Raises ModelError where the stack is not found, a layer is not there, or several GPUs would share one process.
    """

    def __init__(
        self, *args: Any, penalty: Penalty | None = None, layers_path: str | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.penalty = penalty
        self._stack = decoder_stack(cast("PreTrainedModel", self.model), layers_path)
        if penalty is not None:
            penalty.check_layers(len(self._stack))
            if self.args.n_gpu > 1:
                raise ModelError("expected one GPU a process, got several: start with torchrun or accelerate launch")
        self._step_tokens: int | Tensor = 1
        self._added: Tensor | float = 0.0
        self._steps = 0  # that `_added` is of

    @property
    def share(self) -> float:
        """The share of the run that is done, for the penalty's schedule."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """Return the batches of one step, and what the Trainer counts in them; count their real tokens too."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_tokens = sum(_tokens(sample) for sample in samples)
        self._steps += 1
        return samples, items

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the model's loss and, while it trains, the penalty on top."""
        if self.penalty is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with recorded(self._stack) as positions:
            loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        value = self.penalty(positions, inputs.get("attention_mask"))
        added = self.penalty.factor(self.share) * _tokens(inputs) / self._step_tokens * value.to(loss.device)
        self._added = self._added + added.detach()
        # The Trainer divides by the passes of a step a loss that it takes for one pass' mean.
        loss = loss + added * (1 if self._scaled(num_items_in_batch) else self.current_gradient_accumulation_steps)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with each loss, the mean penalty of the steps since the one before."""
        if self.penalty is not None and "loss" in logs:
            logs = {**logs, "penalty": float(self._added) / max(self._steps, 1)}
            self._added, self._steps = 0.0, 0
        super().log(logs, start_time)

    def _scaled(self, items: Tensor | int | None) -> bool:
        told: bool | None = getattr(self, "loss_is_scaled_for_ga", None)  # not in every version
        if told is not None:
            return told
        return (self.model_accepts_loss_kwargs and items is not None) or self.compute_loss_func is not None


def _tokens(batch: dict[str, Tensor]) -> int | Tensor:
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else mask.sum()
