"""Find what attention and MLP each add to the stream: not by a family's name, but by what adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rectilinear.models.stack import first, layer_input

ATTENTION = ("attn", "attention")
MLP = ("mlp", "feed_forward", "ffn", "moe", "fc2")
TOLERANCE = 1e-2  # of the contribution's norm, for "adds up"

OnParts = Callable[[int, Tensor, Tensor, Tensor, Tensor, bool], None]


@dataclass(frozen=True)
class Parts:
    """Names of a layer's children: candidates for its attention and its MLP, best first, and its norms.

    split: the MLP's first half, where its second half is a child of its own, under `mlp`, and both it and attention add
    the stream and norm the sum themselves (BERT and its kin); else empty.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    norms: tuple[str, ...]
    split: tuple[str, ...] = ()


def find_parts(layer: nn.Module) -> Parts | None:
    """Return the children that may be attention and MLP, None where either is missing."""
    names = [name for name, _ in layer.named_children()]
    norms = tuple(name for name in names if "norm" in name.lower() or name.startswith("ln"))
    bare = {name for name, child in layer.named_children() if next(child.parameters(), None) is None}  # dropout

    def marked(marks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(n for n in names if n not in norms and n not in bare and any(m in n.lower() for m in marks))

    attention, mlp = marked(ATTENTION), marked(MLP)
    rest = names[names.index(attention[-1]) + 1 :] if attention else []
    if not mlp and len(rest) == 2:
        return Parts(attention, (rest[1],), norms, split=(rest[0],))
    return Parts(attention, mlp, norms) if attention and mlp else None


@contextmanager
def watch_parts(stack: nn.ModuleList, on_parts: OnParts) -> Iterator[None]:
    """Call `on_parts(i, x, a, h, m, exact)` after each layer; all tensors are [b, w, d].

    x: the layer's input; a: attention's contribution; h: the stream that the MLP reads (x + a, or x where both run in
    parallel); m: the MLP's contribution. With `exact`, x + a + m is the layer's output; otherwise (the norm comes after
    the sum) a and m are the submodules' raw outputs. Layers without a recognisable attention and MLP are passed over.
    """
    handles: list[RemovableHandle] = []
    for index, layer in enumerate(stack):
        parts = find_parts(layer)
        if parts is None:
            continue
        handles += _Collector(index, parts, on_parts).hook(layer)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def adders(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the children whose outputs a layer adds to the stream: attention or the norm behind it, MLP likewise.

    The layer is run once with the arguments given. None where no two children's outputs add up.
    """
    parts = find_parts(layer)
    if parts is None or parts.split:
        return None
    collector = _Collector(0, parts, lambda *_: None)
    handles = collector.hook(layer)
    try:
        layer(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    rule = collector.rule
    return (rule.attention, rule.mlp) if rule is not None and rule.exact else None


@dataclass(frozen=True)
class _Rule:
    """How a layer's contributions follow from its children's outputs."""

    attention: str
    mlp: str
    exact: bool
    scale: float = 1.0  # the family's residual multiplier (Granite)
    summed: bool = False  # the children add the stream themselves (BLOOM, BERT)
    parallel: bool = False


class _Collector:
    """Gathers what one layer's children read and give; the first forward pass fixes the rule."""

    def __init__(self, index: int, parts: Parts, on_parts: OnParts) -> None:
        self.index, self.parts, self.on_parts = index, parts, on_parts
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.rule: _Rule | None = None

    def hook(self, layer: nn.Module) -> list[RemovableHandle]:
        """Watch the layer and its children until the handles are removed."""
        names = (*self.parts.attention, *self.parts.mlp, *self.parts.norms, *self.parts.split)
        children = [
            layer.get_submodule(name).register_forward_hook(self.child(name), with_kwargs=True) for name in names
        ]
        return [*children, layer.register_forward_hook(self.whole, with_kwargs=True)]

    def child(self, name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self.rule is not None and name not in (self.rule.attention, self.rule.mlp):
                return
            if args and isinstance(args[0], Tensor):
                self.inputs[name] = args[0]
            value = first(output)
            if isinstance(value, Tensor):
                # Falcon adds attention's output into the MLP's in place.
                self.outputs[name] = value.clone() if name in self.parts.mlp else value

        return seen

    def whole(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        y = first(output)
        x = layer_input(args, kwargs).to(y.device)
        # OPT's MLP works on [b * w, d].
        inputs, outputs = _shaped(self.inputs, x), _shaped(self.outputs, x)
        self.inputs, self.outputs = {}, {}
        if self.rule is None:
            self.rule = _rule(self.parts, x, y, inputs, outputs)
        if self.rule is None:
            return
        a, m = _contributions(self.rule, x, outputs)
        h = x if self.rule.parallel else x + a
        self.on_parts(self.index, x, a, h, m, self.rule.exact)


def _rule(parts: Parts, x: Tensor, y: Tensor, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> _Rule | None:
    """Return the rule by which x [b, w, d] becomes y; not exact where none is found, None without any outputs.

    Of a split MLP, which is a guess by the order of children, only an exact rule is believed.
    """
    norms = [inputs[name] for name in (*parts.norms, *parts.split) if name in inputs]

    def candidates(names: tuple[str, ...]) -> list[str]:
        raw = [name for name in names if name in outputs]
        # A norm may be applied to a contribution before it is added (Gemma 2, OLMo 2).
        fed = [n for n in parts.norms if n in inputs and any(torch.equal(inputs[n], outputs[name]) for name in raw)]
        return raw + fed

    pairs = list(product(candidates(parts.attention), candidates(parts.mlp)))
    if not pairs:
        return None
    z = y - x
    best = min(pairs, key=lambda pair: _misfit(outputs[pair[0]] + outputs[pair[1]], z))
    total = outputs[best[0]] + outputs[best[1]]
    scale = _scale(total, z)
    attention, mlp = pairs[0]
    if close(scale * total, z, z, y):
        rule = _Rule(*best, exact=True, scale=scale)
    elif close(outputs[mlp], y, z, y) and any(close(seen, outputs[attention], z, y) for seen in norms):
        rule = _Rule(attention, mlp, exact=True, summed=True)
    elif parts.split:
        return None
    else:
        rule = _Rule(attention, mlp, exact=False)
    a, _ = _contributions(rule, x, outputs)
    readers = norms + [inputs[name] for name in parts.mlp if name in inputs]
    parallel = not any(close(seen, x + a, a, x) for seen in readers)
    return _Rule(rule.attention, rule.mlp, rule.exact, rule.scale, rule.summed, parallel)


def _contributions(rule: _Rule, x: Tensor, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    a, m = outputs[rule.attention], outputs[rule.mlp]
    if rule.summed:
        return a - x, m - a
    return (a, m) if rule.scale == 1 else (a * rule.scale, m * rule.scale)


def _shaped(tensors: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    return {name: value.reshape(x.shape) for name, value in tensors.items() if value.numel() == x.numel()}


def _scale(total: Tensor, z: Tensor) -> float:
    """Return the least-squares factor from `total` to z, 1 where it is that but for rounding."""
    total, z = total.float(), z.float()
    square = float(total.square().sum())
    scale = float((total * z).sum()) / square if square > 0 else 1.0
    return 1.0 if abs(scale - 1) < TOLERANCE else scale


def _misfit(total: Tensor, z: Tensor) -> float:
    return float((z - _scale(total, z) * total).float().norm())


def close(value: Tensor, target: Tensor, contribution: Tensor, stream: Tensor) -> bool:
    """Tell whether value is target to TOLERANCE of the contribution, and to what a half-precision stream rounds off."""
    rounding = torch.finfo(stream.dtype).eps * float(stream.float().norm())
    return float((value - target).float().norm()) <= TOLERANCE * float(contribution.float().norm()) + rounding
