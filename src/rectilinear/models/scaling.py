"""Scale what a decoder layer adds to the stream, by the parameters that come last on the way there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rectilinear.errors import ModelError
from rectilinear.models.stack import layer_input
from rectilinear.models.submodules import adders, find_parts


def scaled_parameters(
    layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], factor: float
) -> list[tuple[Tensor, Tensor]]:
    """Return parameters of `layer` and values with which attention and MLP each add `factor` times as much.

    args, kwargs: what the model hands the layer, without a cache. Raises ModelError where that cannot be said by one
    projection or norm each (experts, norms after the sum).
    """
    _check_normed(layer, args, kwargs)
    names = adders(layer, args, kwargs)
    if names is None:
        raise ModelError(
            f"cannot scale what {type(layer).__name__} adds to the stream: its parts do not add up; use another repair"
        )
    changes: list[tuple[Tensor, Tensor]] = []
    for name in names:
        child = layer.get_submodule(name)
        last = _last_projection(child)
        if last is not None:
            parameters = [p for p in (last.weight, last.bias) if p is not None]
            changes += [(p.data, p.data * factor) for p in parameters]
        else:
            changes += _gain(child, factor)
    return changes


def _check_normed(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise ModelError where no norm of the layer reads the stream: its size would matter (OLMo 2)."""
    x = layer_input(args, dict(kwargs))
    reads: list[bool] = []
    parts = find_parts(layer)
    names = () if parts is None else parts.norms
    handles = [
        layer.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs: reads.append(inputs[0].shape == x.shape and torch.equal(inputs[0], x))
        )
        for name in names
    ]
    try:
        layer(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if not any(reads):
        raise ModelError(
            f"cannot scale the stream of {type(layer).__name__}: it reads it without a norm; use another repair"
        )


def _last_projection(child: nn.Module) -> Any:
    linear = [module for module in child.modules() if isinstance(module, nn.Linear | Conv1D)]
    if any(p.dim() > 2 for p in child.parameters()) or any(isinstance(m, nn.ModuleList) for m in child.modules()):
        raise ModelError(f"cannot scale {type(child).__name__}: it holds experts; use another repair")
    return linear[-1] if linear else None


def _gain(norm: nn.Module, factor: float) -> list[tuple[Tensor, Tensor]]:
    """Return the change of an RMS norm's gain; some families keep the gain less one."""
    (parameter,) = norm.parameters()
    weight = parameter.data
    with torch.no_grad():
        gain = norm(torch.ones_like(weight)[None])[0]
    less = 0.0 if torch.allclose(gain, weight, rtol=1e-2, atol=1e-3) else 1.0
    return [(weight, (weight + less) * factor - less)]
