"""Take layers out of a model in place, or put linear blocks in their places, and let all that follows follow."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from rectilinear.core.linear import AffineMap
from rectilinear.errors import ModelError
from rectilinear.models.layer_config import keep_layers_
from rectilinear.models.linear_block import LinearBlock, linear_class
from rectilinear.models.renumber import Changes, apply_
from rectilinear.models.stack import decoder_stack, forward, is_block, width

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def cut_(
    model: PreTrainedModel,
    stack: nn.ModuleList | str | None,
    remove: Sequence[int],
    blocks: Mapping[int, AffineMap | LinearBlock] | None = None,
) -> None:
    """Take the layers `remove` out of the decoder stack, in place; linear `blocks` take the places of others.

    stack: the stack, its path, or None to find it. blocks: by the number of the layer that each replaces, an affine
    map of its contribution, y = x + x @ weight + bias, weight [d, d], bias [d]; or a block of a low rank, made by
    `linear_block`. A span becomes one block: `blocks` names its first layer, `remove` the others. Layer numbers are
    those before the cut, 0-based. Layers are renumbered and the config follows; embeddings, tied or not, stay as they
    are. A model with blocks becomes a subclass of its class that saves them. Raises ModelError, before anything is
    changed, for numbers out of range or given twice, nothing left, maps of another size, or a family whose config
    cannot say what is left.
    """
    if not isinstance(stack, nn.ModuleList):
        stack = decoder_stack(model, stack)
    kept = _kept(len(stack), remove, blocks or {})
    path = next(name for name, module in model.named_modules() if module is stack)
    if blocks:
        _check_class(model)
    made = _blocks(model, stack, blocks or {})
    linear = {i for i, layer in enumerate(stack) if i in made or is_block(layer)}
    changes = Changes(model, path, kept, linear)

    for config in _own_configs(model, len(stack)):
        keep_layers_(config, kept)
    for old, block in made.items():
        stack[old] = block
    for old in sorted(set(range(len(stack))) - set(kept), reverse=True):
        del stack[old]
    for layer, changed in zip(stack, changes.layers, strict=True):
        apply_(layer, changed)
    apply_(model, changes.around)
    _declare_blocks_(model, path, stack)


@contextmanager
def standing_in(model: PreTrainedModel, stack: nn.ModuleList, maps: Mapping[int, AffineMap | None]) -> Iterator[None]:
    """Let a linear block stand in for each of some layers: of the map given, or of none, y = x, as if it were removed.

    Nothing is copied or renumbered, and the layers are back on leaving. maps: by the layer's number, 0-based, as for
    `cut_`. Raises ModelError for numbers out of range and maps of another size.
    """
    _kept(len(stack), [], maps)
    nothing = LinearBlock(width(model), rank=0)
    made = _blocks(model, stack, {i: nothing if fitted is None else fitted for i, fitted in maps.items()})
    layers = {i: stack[i] for i in made}
    try:
        for i, block in made.items():
            block.layer_idx = i
            stack[i] = block
        yield
    finally:
        for i, layer in layers.items():
            stack[i] = layer


def linear_block(fitted: AffineMap, rank: int | None = None) -> LinearBlock:
    """Return a block for the map, weight [d, d] and bias [d], in float32; with a `rank`, as two factors of that rank.

    The factors are the weight's leading singular directions: nothing is lost where the map was fitted with that rank.
    """
    block = LinearBlock(len(fitted.bias), rank)
    with torch.no_grad():
        if rank is None:
            block.weight.copy_(fitted.weight)
        else:
            u, s, v = torch.linalg.svd(fitted.weight, full_matrices=False)
            root = s[:rank].sqrt()
            block.down.copy_(u[:, :rank] * root)
            block.up.copy_(root[:, None] * v[:rank])
        block.bias.copy_(fitted.bias)
    return block


def _kept(count: int, remove: Sequence[int], blocks: Mapping[int, Any]) -> list[int]:
    named = [*remove, *blocks]
    wrong = sorted({i for i in named if not 0 <= i < count})
    if wrong:
        raise ModelError(f"expected layers from 0 to {count - 1}, got {', '.join(map(str, wrong))}")
    twice = sorted({i for i in named if named.count(i) > 1})
    if twice:
        raise ModelError(f"expected each layer once, got {', '.join(map(str, twice))} more than once")
    kept = sorted(set(range(count)) - set(remove))
    if not kept:
        raise ModelError(f"expected fewer than the model's {count} layers to remove, got all of them")
    return kept


def _own_configs(model: PreTrainedModel, count: int) -> list[PreTrainedConfig]:
    """Return each config object of the text model that lies about in the model, usually one."""
    kind = type(model.config.get_text_config())
    held: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    texts = [config.get_text_config() for config in held if hasattr(config, "get_text_config")]
    unique = {id(config): config for config in texts if type(config) is kind}
    return [config for config in unique.values() if config.num_hidden_layers == count]


def _check_class(model: PreTrainedModel) -> None:
    """Raise ModelError for a model with blocks that could not be saved."""
    plain = getattr(type(model), "plain_class", type(model))
    if getattr(transformers, plain.__name__, None) is not plain:
        raise ModelError(
            f"expected a model class of transformers for linear blocks, got {plain.__name__}: remove layers"
        )


def _blocks(
    model: PreTrainedModel, stack: nn.ModuleList, maps: Mapping[int, AffineMap | LinearBlock]
) -> dict[int, LinearBlock]:
    """Return a block for each map, on the device of the layer it replaces and in the model's dtype."""
    if not maps:
        return {}
    outputs = _outputs(model, stack, next(iter(maps)))
    made: dict[int, LinearBlock] = {}
    for old, given in maps.items():
        block = copy.deepcopy(given) if isinstance(given, LinearBlock) else linear_block(given)
        if len(block.bias) != width(model):
            raise ModelError(f"expected maps of width {width(model)}, got {len(block.bias)} for layer {old}")
        block.outputs = outputs
        device = next((p.device for p in stack[old].parameters()), model.device)
        made[old] = block.to(device=device, dtype=model.dtype)
    return made


def _outputs(model: PreTrainedModel, stack: nn.ModuleList, index: int) -> int:
    """Return the length of the tuple that a layer returns, 0 for a tensor: seen, for no family says it."""
    seen: list[Any] = []
    handle = stack[index].register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with torch.no_grad():
            forward(model, stack, torch.zeros(1, 2, dtype=torch.long, device=model.device), None)
    finally:
        handle.remove()
    return len(seen[0]) if isinstance(seen[0], tuple) else 0


def _declare_blocks_(model: PreTrainedModel, path: str, stack: nn.ModuleList) -> None:
    """Tell the config, the class and the blocks themselves where the blocks are."""
    blocks: dict[int, Any] = {i: layer for i, layer in enumerate(stack) if is_block(layer)}
    kind: Any = type(model)
    plain = getattr(kind, "plain_class", kind)
    model.__class__ = linear_class(plain) if blocks else plain
    if not blocks:
        vars(model.config).pop("linear_blocks", None)
        return
    for i, block in blocks.items():
        block.layer_idx = i
    model.config.linear_blocks = {
        "stack": path,
        "outputs": next(iter(blocks.values())).outputs,
        "ranks": {str(i): block.rank for i, block in blocks.items()},
    }
