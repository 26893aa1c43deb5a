"""What a configuration may say, whoever wrote it, before a model is built of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError
from rectilinear.models.outside import one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig


def check_config(config: PreTrainedConfig, model: str, *, trusted: bool) -> None:
    """Raise ModelError for what transformers takes as it comes and this package goes by, and for code by its name.

    model: its name, for errors. trusted: whether code that comes with the model may run.
    """
    from transformers import PreTrainedConfig

    with one_line(f"cannot read the configuration of {model!r}"):
        text = config.get_text_config()
    if not isinstance(text, PreTrainedConfig):
        raise ModelError(f"expected the settings of a text model in the configuration of {model!r}, got {text!r}")
    named: Any = config.architectures
    if named is not None and not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        raise ModelError(f"expected a list of names as architectures in the configuration of {model!r}, got {named!r}")
    own_dtype(config)
    layers: Any = getattr(text, "num_hidden_layers", 1)
    if not isinstance(layers, int) or layers < 1:
        raise ModelError(f"expected one layer or more in the configuration of {model!r}, got {layers!r}")
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        kernel = getattr(part, "_attn_implementation", None)
        if isinstance(kernel, str) and "/" in kernel and not trusted:
            raise ModelError(
                f"the configuration of {model!r} asks for the code of {kernel!r}: add --trust-remote-code to run it, "
                "or take attn_implementation out of its config.json"
            )


def own_dtype(config: PreTrainedConfig) -> torch.dtype | None:
    """Return the dtype that a checkpoint names, None where it names none; raises ModelError for what is none."""
    import torch

    own: Any = config.get_text_config().dtype or config.dtype
    found = getattr(torch, own, None) if isinstance(own, str) else own
    if found is None and own is None:
        return None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ModelError(f"expected a type of floating-point numbers as dtype of the checkpoint, got {own!r}")
    return found
