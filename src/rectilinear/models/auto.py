"""Let transformers' Auto classes load checkpoints with linear blocks."""

from __future__ import annotations


def register() -> None:
    """Make AutoConfig and AutoModelForCausalLM know the checkpoints that `save_model` writes of models with blocks.

    `rectilinear.load` does so by itself. Without it, or without rectilinear, they load with `trust_remote_code=True`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from rectilinear.models.linear_block import RectilinearConfig, RectilinearForCausalLM

    AutoConfig.register(RectilinearConfig.model_type, RectilinearConfig, exist_ok=True)
    AutoModelForCausalLM.register(RectilinearConfig, RectilinearForCausalLM, exist_ok=True)
