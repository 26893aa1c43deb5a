"""Find what attention and MLP each add to the stream: not by a family's name, but by what adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rectilinear.models.stack import first, layer_input

ATTENTION = ("attn", "attention", "mixer")
MLP = ("mlp", "feed_forward", "ffn", "moe", "fc2")
TOLERANCE = 1e-2  # of the contribution's norm, for "adds up"

OnParts = Callable[[int, Tensor, Tensor, Tensor, Tensor, bool], None]


class _Layer:
    """Collects the outputs of one layer's children during a forward pass, and tells the two contributions among them."""

    def __init__(self, index: int, layer: nn.Module, on_parts: OnParts) -> None:
        self.index, self.on_parts = index, on_parts
        self.outputs: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.chosen: tuple[str, str] | None = None
        self.exact = False
        children = [name for name, _ in layer.named_children()]
        self.attention = [n for n in children if _is(n, ATTENTION) and "norm" not in n]
        self.mlp = [n for n in children if _is(n, MLP) and "norm" not in n]
        # A norm may be applied to a contribution before it is added (Gemma 2, OLMo 2).
        self.norms = [n for n in children if "norm" in n or n.startswith("ln")]

    def child(self, name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            value = first(output)
            if isinstance(value, Tensor):
                self.outputs[name] = value
                if args and isinstance(args[0], Tensor):
                    self.inputs[name] = args[0]

        return seen

    def whole(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        x, y = layer_input(args, kwargs), first(output)
        parts = {name: value.reshape(x.shape) for name, value in self.outputs.items() if value.numel() == x.numel()}
        if self.chosen is None:
            self.chosen, self.exact = self._choose(parts, y - x)
        a, m = parts[self.chosen[0]], parts[self.chosen[1]]
        if self.exact:
            scale = _scale(a + m, y - x)
            a, m = a * scale, m * scale
        self.on_parts(self.index, x, a, self._read_by_mlp(x, a, parts), m, self.exact)
        self.outputs, self.inputs = {}, {}

    def _choose(self, parts: dict[str, Tensor], z: Tensor) -> tuple[tuple[str, str], bool]:
        """Return the names whose outputs add up to z, the raw submodules' where none do."""
        attention = [n for n in (*self.norms, *self.attention) if n in parts]
        mlp = [n for n in (*self.norms, *self.mlp) if n in parts]
        for a in attention:
            for m in mlp:
                total = parts[a] + parts[m]
                if a != m and _scale(total, z) > 0 and (z - _scale(total, z) * total).norm() <= TOLERANCE * z.norm():
                    return (a, m), True
        return (self.attention[0], self.mlp[0]), False

    def _read_by_mlp(self, x: Tensor, a: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Return x + a where a norm (or the MLP itself) reads that sum, else x: parallel blocks."""
        after = x + a
        for name in (*self.norms, *self.mlp):
            seen = self.inputs.get(name)
            if seen is not None and seen.numel() == x.numel():
                gap = (seen.reshape(x.shape) - after).norm()
                if gap <= TOLERANCE * a.norm():
                    return after
        return x


@contextmanager
def watch_parts(stack: nn.ModuleList, on_parts: OnParts) -> Iterator[None]:
    """Call `on_parts(i, x, a, h, m, exact)` after each layer.

    x [b, w, d]: the layer's input; a: attention's contribution; h: the stream that the MLP reads (x + a, or x where both
    run in parallel); m: the MLP's contribution. With `exact`, x + a + m is the layer's output; otherwise (encoders with
    the norm after the sum) a and m are the submodules' raw outputs. Layers without a recognisable attention and MLP are
    passed over.
    """
    handles = []
    for index, layer in enumerate(stack):
        collector = _Layer(index, layer, on_parts)
        if not (collector.attention and collector.mlp):
            continue
        for name in (*collector.attention, *collector.mlp, *collector.norms):
            handles.append(layer.get_submodule(name).register_forward_hook(collector.child(name), with_kwargs=True))
        handles.append(layer.register_forward_hook(collector.whole, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is(name: str, marks: tuple[str, ...]) -> bool:
    return any(mark in name.lower() for mark in marks)


def _scale(total: Tensor, z: Tensor) -> float:
    """Return the factor that brings `total` nearest to z: 1, or the family's residual multiplier."""
    square = float(torch.sum(total.float() ** 2))
    return float(torch.sum(total.float() * z.float())) / square if square > 0 else 0.0
