"""Weights into a model, and what it says where some of them are not there: numbers drawn by chance are not measured."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rectilinear.errors import ModelError
from rectilinear.models.folders import ADAPTER
from rectilinear.models.stack import decoder_stack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

NO_ADAPTER = ".no-adapter"  # a folder that no model has


def read_weights(kind: Any, source: str, model: str, *, new_head: bool, **options: Any) -> Any:
    """Return a model of the class `kind` with the weights that lie at `source`, as its `from_pretrained` does.

    model: its name, for errors. new_head: whether a head may start from random numbers. Raises ModelError where a
    weight of the decoder is missing, or of an adapter that lies beside it. A head for language that is missing is let
    through, for most of what is measured needs none, but raises ModelError as soon as it is run.
    """
    adapted = (Path(source) / ADAPTER).is_file()
    if adapted:  # transformers would tell of the adapter's weights alone: it is put on below
        options["adapter_kwargs"] = {"subfolder": NO_ADAPTER}
    loaded: Any
    loaded, told = kind.from_pretrained(source, use_safetensors=True, output_loading_info=True, **options)
    missing = missing_weights(loaded, told)
    head = [name for name in missing if not _in_body(loaded, name)]
    check_whole(model, set(missing) - set(head))
    loaded.drawn = () if new_head else tuple(head)
    _guard_head_(loaded, model)
    loaded.unread = _unread(loaded, told["unexpected_keys"])
    if adapted and not getattr(loaded, "_hf_peft_config_loaded", False):  # some versions pass the folder's name over
        found = loaded.load_adapter(source)
        check_whole(model, () if found is None else found.missing_keys)
    return loaded


def check_whole(model: str, missing: Iterable[str]) -> None:
    """Raise ModelError where weights are missing."""
    names = sorted(missing)
    if names:
        raise ModelError(
            f"expected all weights of {model!r}, got none for {len(names)}, as {names[0]}: they would be random numbers"
        )


def _guard_head_(loaded: Any, model: str) -> None:
    """Let what owns the weights that were drawn by chance raise ModelError when it is run."""
    for owner in {name.rpartition(".")[0] for name in loaded.drawn}:
        loaded.get_submodule(owner).register_forward_pre_hook(partial(_refuse, model, loaded.drawn[0]))


def _refuse(model: str, name: str, module: nn.Module, args: Any) -> NoReturn:
    raise ModelError(
        f"expected a head for language, got {model!r} without {name}: it would be random numbers; "
        "what needs none, as a scan, works"
    )


def missing_weights(loaded: PreTrainedModel, told: dict[str, Any]) -> list[str]:
    """Return the parameters that no file held, by transformers' `output_loading_info`.

    Tied ones are not among them. Buffers that old checkpoints lack have fixed values.
    """
    own = {name for name, _ in loaded.named_parameters(remove_duplicate=False)}
    return sorted(own & set(told["missing_keys"]))


def _in_body(loaded: PreTrainedModel, name: str) -> bool:
    """Tell whether a weight belongs to the model without its head."""
    body: Any = loaded.base_model
    return body is loaded or name.startswith(f"{loaded.base_model_prefix}.")


def _unread(loaded: PreTrainedModel, unexpected: Iterable[str]) -> tuple[str, ...]:
    """Return the weights in the files that look like those of decoder layers and have no place in the model."""
    try:
        stack = decoder_stack(loaded)
    except ModelError:
        return ()  # the caller may have a path for it
    path = next(name for name, module in loaded.named_modules() if module is stack)
    return tuple(sorted(name for name in unexpected if name.startswith(f"{path}.")))
