"""Next-token logits of any decoder, and the refusal of what is none."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rectilinear.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def next_token_logits(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None, start: int) -> Tensor:
    """Return the logits [b, w - start, v] at the positions from `start` on, in the model's own type; no cache.

    input_ids: [b, w]. attention_mask: [b, w], 0 at pads on the right, None where every token is real.
    """
    width = input_ids.shape[1]
    accepted = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": False, "attention_mask": attention_mask, "logits_to_keep": width - start}
    options = {name: value for name, value in options.items() if name in accepted}
    logits = model(input_ids=input_ids, **options).logits
    return logits[:, logits.shape[1] - (width - start) :]


def greedy_step(model: PreTrainedModel, input_ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
    """Return the most likely token [b, 1] after what `cache` holds and input_ids [b, w], and the cache after them."""
    options: dict[str, Any] = {"use_cache": True, "past_key_values": cache}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = 1
    output = model(input_ids=input_ids, **options)
    return output.logits[:, -1:].argmax(-1), output.past_key_values


def check_causal(model: PreTrainedModel) -> None:
    """Raise ModelError unless the model predicts a token from those before it only.

    Asked of its behaviour, not of its name: changing the last token must not change the logits before it.
    """
    wanted = f"expected a decoder, which predicts the next token, got {type(model).__name__}"
    ids = torch.tensor([[1, 1, 0], [1, 1, 2]], device=model.device)
    try:
        with torch.inference_mode():
            logits = next_token_logits(model, ids, None, 0)[:, :2].float()
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{wanted}: it gives no logits for a text alone ({error})") from error
    gap, size = (logits[0] - logits[1]).abs().max(), logits.abs().max()
    if bool(gap > max(1e-4, 8 * torch.finfo(model.dtype).eps) * size):  # experts may round other batches differently
        raise ModelError(f"{wanted}: it looks at the tokens to come, as encoders do, and has no next-token loss")
