"""Write a model as a checkpoint that transformers loads, whatever was done to it here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import ModelError
from rectilinear.models.quiet import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHARD = "5GB"


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write weights (safetensors, sharded), configs and tokenizer into `folder`, in the dtype of the source checkpoint.

    A model with linear blocks brings the file that loads it. Nothing is done about what the folder holds, or about an
    interruption: that is for the caller to see to. Raises ModelError for quantised weights, weights that cannot be
    written and a head that is random numbers, OSError where the disk refuses.
    """
    from safetensors import SafetensorError

    drawn = getattr(model, "drawn", ())
    if drawn:
        raise ModelError(f"expected a model with a head for language to write, got one without {drawn[0]}")
    forget_quantisation_(model)
    stored = getattr(model, "stored_dtype", None) or model.dtype
    with quiet():
        try:
            with _settings_as_they_are(model, folder):
                model.save_pretrained(folder, state_dict=_cast(model, stored), max_shard_size=SHARD)
        except (SafetensorError, RuntimeError) as error:
            raise ModelError(f"cannot write the weights to {folder}: {error}") from error
        _name_dtype(folder / "config.json", str(stored).removeprefix("torch."))
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


@contextmanager
def _settings_as_they_are(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """Write the generation settings too: some that are published transformers refuses to write anew."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        yield
        return
    model.generation_config = type(settings)()
    try:
        yield
    finally:
        model.generation_config = settings
    path = folder / "generation_config.json"
    if path.exists():
        settings.to_json_file(path, keys_to_pop=["compile_config"])


def forget_quantisation_(model: Any) -> None:
    """Drop the record that a model once was quantised, for which transformers refuses to save it.

    Raises ModelError where it still is: its weights are no plain numbers.
    """
    from torch import nn

    if not (getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None)):
        return
    for name, parameter in model.named_parameters():
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
            raise ModelError(f"expected plain weights, got {name} quantised: call model.dequantize() first")
    model.hf_quantizer = None
    model.is_quantized = model._is_quantized = False
    for owner, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Any] | None:
    """Return the state in `dtype`, None where it is that already; tied weights stay one tensor."""
    if model.dtype == dtype:
        return None
    cast: dict[tuple[int, torch.Size], Any] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        key = tensor.data_ptr(), tensor.shape
        if key not in cast:
            cast[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        state[name] = cast[key]
    return state


def _name_dtype(path: Path, name: str) -> None:
    # transformers names the dtype that the model has in memory.
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and "dtype" in part:
            part["dtype"] = name
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
