"""Cut a configuration: everything in it that is said of single layers follows the layers that stay."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# "The first so many layers": in families whose configurations count them instead of listing them.
PREFIXES = ("max_window_layers", "first_k_dense_replace", "num_dense_layers")


def keep_layers_(config: PreTrainedConfig, kept: Sequence[int]) -> None:
    """Make a text model's config describe only the layers `kept` (old numbers, ascending).

    Lists of one element a layer are cut, lists of layer numbers renumbered, run-length lists (GPT-Neo's
    `attention_types`) expanded and cut, counts of first layers counted anew, overrides by layer number renumbered.
    """
    count = int(config.num_hidden_layers)
    heterogeneous = getattr(config, "is_heterogeneous", False)
    overrides = config.to_dict()["per_layer_config"] if heterogeneous else {}
    for name, value in list(vars(config).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, list | tuple):
            setattr(config, name, type(value)(_cut_list(name, list(value), kept, count)))
        elif name in PREFIXES and isinstance(value, int) and value <= count:
            setattr(config, name, sum(old < value for old in kept))
    config.num_hidden_layers = len(kept)
    if overrides:
        old = {int(key): value for key, value in overrides.items()}
        config.per_layer_config = {new: old[number] for new, number in enumerate(kept) if number in old}


def _cut_list(name: str, value: list[Any], kept: Sequence[int], count: int) -> list[Any]:
    numbers = all(type(item) is int and 0 <= item < count for item in value) and len(set(value)) == len(value)
    if numbers and ("layer" in name or len(value) == count):
        return [new for new, old in enumerate(kept) if old in value]
    if len(value) == count:
        return [value[old] for old in kept]
    runs = [item for item in value if isinstance(item, list | tuple) and len(item) == 2]
    if len(runs) == len(value) and all(isinstance(part, list) and isinstance(times, int) for part, times in runs):
        expanded = list(chain.from_iterable(part * times for part, times in runs))
        if len(expanded) == count:
            return [[[expanded[old] for old in kept], 1]]
    return value
