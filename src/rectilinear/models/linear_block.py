"""Linear blocks in place of decoder layers, and how a checkpoint with such blocks is loaded and saved.

This file is copied into every checkpoint with linear blocks, as modeling_rectilinear.py, so that it loads with
`trust_remote_code=True` where rectilinear is not installed: it imports torch and transformers only.
"""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, Cache, PreTrainedConfig, PreTrainedModel

FILE = "modeling_rectilinear.py"
MOST_OUTPUTS = 100  # of a layer


class LinearBlock(nn.Module):
    """y = x + x @ weight + bias, where a decoder layer was; of a low rank, x + x @ down @ up + bias.

    weight [d, d], or down [d, r] and up [r, d]; bias [d]. `layer_idx` is its place in the stack; `outputs` is 0 where
    the family's layers return a tensor, otherwise the length of the tuple they return.
    """

    is_linear_block = True  # told by this, not by its class: a checkpoint's own copy of this file has another class

    def __init__(self, width: int, rank: int | None = None, *, layer_idx: int = 0, outputs: int = 0) -> None:
        super().__init__()
        self.rank, self.layer_idx, self.outputs = rank, layer_idx, outputs
        if rank is None:
            self.weight = nn.Parameter(torch.zeros(width, width))
        else:
            self.down = nn.Parameter(torch.zeros(width, rank))
            self.up = nn.Parameter(torch.zeros(rank, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Map hidden_states [b, w, d]; what else the model hands its layers is passed over, but for the cache."""
        x = hidden_states.to(self.bias.device)  # spread over devices, nothing else moves it here
        mapped = x @ self.weight if self.rank is None else x @ self.down @ self.up
        y = x + (mapped + self.bias).to(x.dtype)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache):
                # One number a token: the model takes the cached length, and each layer's kind, from its place in the
                # cache, so a place left empty puts positions and masks of all layers out of step.
                held = value.layers[self.layer_idx] if self.layer_idx < len(value) else None
                if held is None or hasattr(held, "get_seq_length"):  # convolutions (LFM2) count nothing
                    mark = x.new_zeros(x.shape[0], 1, x.shape[1], 1)
                    value.update(mark, mark, self.layer_idx)
        return (y, *[None] * (self.outputs - 1)) if self.outputs else y


@cache
def linear_class(base: type[Any]) -> type[Any]:
    """Return the subclass of a model class that holds the linear blocks its config names, and saves them.

    `config.linear_blocks`: {"stack": path of the decoder stack, "outputs": see LinearBlock, "ranks": {layer: rank or
    None}}. The subclass has its base's name: transformers reads behaviour from it.
    """

    class WithBlocks(base):  # type: ignore[misc]
        plain_class = base

        def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            named, width = config.linear_blocks, config.get_text_config().hidden_size
            stack, ranks, outputs = _named(self, named)
            for index, rank in ranks.items():
                if rank is not None and not 0 <= rank <= width:
                    raise ValueError(f"expected a rank from 0 to {width} of linear block {index}, got {rank}")
                stack[index] = LinearBlock(width, rank, layer_idx=index, outputs=outputs)

        def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
            super().save_pretrained(save_directory, *args, **kwargs)
            _wrap(Path(save_directory))

    WithBlocks.__name__, WithBlocks.__qualname__, WithBlocks.__module__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
    )
    return WithBlocks


def _named(model: nn.Module, blocks: Any) -> tuple[nn.ModuleList, dict[int, int | None], int]:
    """Return the stack, the rank of each block and the length of a layer's outputs, as `config.linear_blocks` has them.

    Raises ValueError for what `save_pretrained` does not write: anyone may have written it.
    """
    try:
        path, outputs = blocks["stack"], blocks["outputs"]
        ranks = {int(key): rank for key, rank in blocks["ranks"].items()}
        stack = model.get_submodule(path)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"expected linear_blocks with a stack, outputs and ranks, got {error}") from error
    if not isinstance(stack, nn.ModuleList) or not all(0 <= index < len(stack) for index in ranks):
        raise ValueError(f"expected linear blocks in a stack of layers that has them, got {path!r}")
    if not isinstance(outputs, int) or not 0 <= outputs <= MOST_OUTPUTS:
        raise ValueError(f"expected the length of a layer's outputs, got {outputs!r}")
    if not all(rank is None or isinstance(rank, int) for rank in ranks.values()):
        raise ValueError(f"expected a rank or null of each linear block, got {ranks!r}")
    return stack, ranks, outputs


class RectilinearConfig(PreTrainedConfig):
    """What stands in config.json: the base model's config, as `text_config`, under a type that plain code refuses."""

    model_type = "rectilinear_linear"

    def __init__(
        self, text_config: dict[str, Any] | None = None, attn_implementation: str | None = None, **kwargs: Any
    ) -> None:
        self.text_config = None
        if text_config is not None:
            if not isinstance(text_config, dict) or not isinstance(text_config.get("model_type"), str):
                raise ValueError("expected a text_config with a model_type")
            options = {**text_config, "attn_implementation": attn_implementation}
            self.text_config = AutoConfig.for_model(options.pop("model_type"), **options)
        super().__init__(**kwargs)


class RectilinearForCausalLM(PreTrainedModel):
    """Loads a checkpoint with linear blocks, as a subclass of the base model's class with the base model's config."""

    config_class = RectilinearConfig

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, *args: Any, config: Any = None, **kwargs: Any
    ) -> PreTrainedModel:
        """Return the model; options as for any model of transformers."""
        if config is None:
            config = RectilinearConfig.from_pretrained(pretrained_model_name_or_path)
        base = config.text_config
        base.name_or_path = config.name_or_path
        return _class(base).from_pretrained(pretrained_model_name_or_path, *args, config=base, **kwargs)

    @classmethod
    def _from_config(cls, config: RectilinearConfig, **kwargs: Any) -> PreTrainedModel:
        return _class(config.text_config)._from_config(config.text_config, **kwargs)


def _class(config: Any) -> type[Any]:
    """Return the class for a base model's config; raises ValueError where that names no model of transformers."""
    named = getattr(config, "architectures", None)
    name = named[0] if isinstance(named, list) and named else None
    base: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if isinstance(base, type) and issubclass(base, PreTrainedModel):
        made: type[Any] = linear_class(base)  # type: ignore[arg-type]
        return made
    raise ValueError(f"expected a model class of transformers under the linear blocks, got {name!r}")


def _wrap(folder: Path) -> None:
    """Turn the base model's config.json into RectilinearConfig's, and put this file beside it."""
    path = folder / "config.json"
    base = json.loads(path.read_text(encoding="utf-8"))
    module = Path(FILE).stem
    wrapped = {
        "architectures": [RectilinearForCausalLM.__name__],
        "auto_map": {
            "AutoConfig": f"{module}.{RectilinearConfig.__name__}",
            "AutoModelForCausalLM": f"{module}.{RectilinearForCausalLM.__name__}",
        },
        "dtype": base.get("dtype"),
        "model_type": RectilinearConfig.model_type,
        "text_config": base,
        "transformers_version": base.pop("transformers_version", None),
    }
    path.write_text(json.dumps(wrapped, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(__file__, folder / FILE)
