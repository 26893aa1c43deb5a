"""Find the MLP's output projection of a decoder layer by structure, and how its output reaches the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rectilinear.errors import ModelError
from rectilinear.models.stack import first
from rectilinear.models.submodules import close, find_parts

INSTEAD = "use a repair that does not need it"


@dataclass(frozen=True)
class Projection:
    """out = inner @ weight + bias, the last step of a layer's MLP: inner [n, f], weight [f, d], bias [d]."""

    module: Any  # nn.Linear, which keeps its weight transposed, or GPT-2's Conv1D, which does not

    @property
    def weight(self) -> Tensor:
        """Return the weight [f, d], as a view of the parameter."""
        weight = self.module.weight.detach()
        return weight.T if isinstance(self.module, nn.Linear) else weight

    @property
    def bias(self) -> Tensor | None:
        """Return the bias [d], as a view of the parameter; None where the family has none."""
        return None if self.module.bias is None else self.module.bias.detach()

    @property
    def has_bias(self) -> bool:
        """Tell whether a bias can be written."""
        return self.module.bias is not None

    @property
    def in_features(self) -> int:
        """Return f, the width of what the projection reads."""
        return int(self.weight.shape[0])

    def write_(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Copy weight [f, d] and bias [d] into the parameters, in their dtype and layout; without a bias, it stays.

        Raises ModelError for other shapes, and for a bias where the projection has none.
        """
        if weight.shape != self.weight.shape:
            raise ModelError(f"expected a weight of shape {tuple(self.weight.shape)}, got {tuple(weight.shape)}")
        self.weight.copy_(weight)
        if bias is None:
            return
        if self.bias is None or bias.shape != self.bias.shape:
            wanted = "no bias: this projection has none" if self.bias is None else f"a bias of shape {self.bias.shape}"
            raise ModelError(f"expected {wanted}, got one of shape {tuple(bias.shape)}")
        self.bias.copy_(bias)


@dataclass(frozen=True)
class Additive:
    """The projection's output reaches the stream times `scale`: 1 in most families, a multiplier in Granite."""

    scale: float


@dataclass(frozen=True)
class Normed:
    """An RMS norm stands between the projection and the stream (Gemma 2, OLMo 2): out * gain / divisor(out)."""

    norm: nn.Module
    gain: Tensor  # [d], float32

    def divisor(self, out: Tensor) -> Tensor:
        """Return what the norm divides each row of `out` [n, d] by, [n, 1], float32."""
        normed = self.norm(out.to(next(self.norm.parameters()).dtype)).float()
        return (out.float() * self.gain).norm(dim=-1, keepdim=True) / normed.norm(dim=-1, keepdim=True)


def output_projection(layer: nn.Module) -> Projection:
    """Return the one Linear or Conv1D in the layer's MLP that leads back to the width its first one reads.

    Raises ModelError where there is no MLP, no such projection, several (experts), or quantised weights.
    """
    parts = find_parts(layer)
    if parts is None or parts.split:
        raise ModelError(f"expected a layer with an MLP, got {type(layer).__name__}: {INSTEAD}")
    found: list[tuple[str, nn.Module]] = []
    for name in parts.mlp:
        child = layer.get_submodule(name)
        # OPT has its two projections in the layer itself.
        held = layer.named_children() if isinstance(child, nn.Linear) else child.named_modules(prefix=name)
        found += [(path, module) for path, module in held if isinstance(module, nn.Linear | Conv1D)]
        if any(parameter.dim() > 2 for parameter in child.parameters()):
            raise ModelError(f"expected one MLP in {type(layer).__name__}, got experts in {name}: {INSTEAD}")
    back = [(path, module) for path, module in found if _shape(module)[1] == _shape(found[0][1])[0]]
    if len(back) > 1 and len(found) <= 3:
        back = back[-1:]  # the MLP is as wide as the stream: the last projection is the one
    if len(back) != 1:
        names = ", ".join(path for path, _ in back) or "none"
        raise ModelError(f"expected one output projection in {type(layer).__name__}'s MLP, got {names}: {INSTEAD}")
    projection = Projection(back[0][1])
    if not projection.weight.is_floating_point():
        raise ModelError(f"expected plain weights, got {projection.weight.dtype}: load the model without quantisation")
    return projection


def contribution(
    layer: nn.Module, projection: Projection, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Additive | Normed:
    """Tell how the projection's output gets into the layer's output, by leaving it out once.

    args, kwargs: what the model hands the layer, without a cache, for a few tokens. The layer is in eval mode. Raises
    ModelError where the contribution is neither the output times a number nor its RMS norm.
    """
    outs: list[Tensor] = []
    readers: list[tuple[nn.Module, Tensor]] = []
    norms = [module for name, module in layer.named_modules() if "norm" in name.lower()]

    def keep(module: nn.Module, inputs: Any, out: Tensor) -> None:
        outs.append(out.clone())  # Falcon adds attention's output to it in place

    with torch.no_grad():
        hooks = [projection.module.register_forward_hook(keep)]
        hooks += [m.register_forward_pre_hook(lambda m, inputs: readers.append((m, inputs[0]))) for m in norms]
        y = _run(layer, args, kwargs, hooks)
        y0 = _run(
            layer, args, kwargs, [projection.module.register_forward_hook(lambda m, i, out: torch.zeros_like(out))]
        )
        if not outs:
            raise ModelError(f"expected {type(layer).__name__} to call its output projection, it did not: {INSTEAD}")
        out, delta = outs[0].reshape(y.shape), y - y0
        scale = _scale(out, delta)
        if close(scale * out, delta, delta, y):
            return Additive(scale)
        for norm in (module for module, seen in readers if seen.shape == outs[0].shape and torch.equal(seen, outs[0])):
            normed = norm(out)
            scale = _scale(normed, delta)
            # Of a row of ones, an RMS norm gives its gain; a norm that subtracts the mean gives nothing.
            gain = scale * norm(torch.ones_like(out[:1, :1])).flatten().float()
            if close(scale * normed, delta, delta, y) and bool(gain.any()):
                return Normed(norm, gain)
    raise ModelError(
        f"cannot repair {type(layer).__name__} by its output projection: what it adds to the stream is neither the "
        f"projection's output nor the RMS norm of it: {INSTEAD}"
    )


def _run(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], hooks: list[Any]) -> Tensor:
    try:
        return first(layer(*args, **kwargs))
    finally:
        for hook in hooks:
            hook.remove()


def _scale(part: Tensor, whole: Tensor) -> float:
    """Return the least-squares factor from part to whole, 1 where it is that but for rounding."""
    part, whole = part.double(), whole.double()
    scale = float((part * whole).sum() / part.square().sum().clamp(min=torch.finfo(torch.float64).tiny))
    return 1.0 if abs(scale - 1) < 1e-3 else scale


def _shape(module: Any) -> tuple[int, int]:
    """Return (in, out)."""
    rows, columns = module.weight.shape
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)
