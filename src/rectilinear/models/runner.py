"""Run single layers of a model on streams: what surrounds a layer in a forward pass is recorded once and replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rectilinear.models.mode import restored
from rectilinear.models.stack import first, forward, layer_input

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class _Enough(Exception):
    """The part of a forward pass that was wanted is done."""


@dataclass(frozen=True)
class _Call:
    """What a layer is handed beside the stream, and the length of the tuple it returns (0 for a tensor)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: int


class Runner:
    """The decoder taken apart: embedding, layers one by one, head. All on full windows, no pads, no cache.

    passed: tokens times layers run so far, which is what the work has cost.
    """

    def __init__(self, model: PreTrainedModel, stack: nn.ModuleList) -> None:
        self.model = model
        self.stack = stack
        self.passed = 0
        self._calls: dict[tuple[int, int], list[_Call]] = {}

    def embed(self, ids: Tensor) -> Tensor:
        """Return position 0 of the stream [b, w, d] for ids [b, w]."""
        seen: list[Tensor] = []

        def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(layer_input(args, kwargs))
            raise _Enough

        handle = self.stack[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            forward(self.model, self.stack, ids.to(self.model.device), None)
        except _Enough:
            pass
        finally:
            handle.remove()
        return seen[0]

    def layer(self, index: int, x: Tensor, module: nn.Module | None = None) -> Tensor:
        """Return the raw output [b, w, d] of layer `index` on x [b, w, d]; of `module` in its place, if given."""
        call = self.call(index, x)
        self.passed += x.shape[0] * x.shape[1]
        return first((module or self.stack[index])(*call[0], **call[1]))

    def call(self, index: int, x: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with which the model would call layer `index` on x [b, w, d]."""
        call = self._recorded(x)[index]
        if call.args:
            return (x, *call.args[1:]), call.kwargs
        return (), {**call.kwargs, "hidden_states": x}

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [b, w, v] of the last position of the stream x [b, w, d]."""
        with self._skipped(x):
            return self.model(input_ids=_some_ids(x)).logits

    @contextmanager
    def _skipped(self, x: Tensor) -> Iterator[None]:
        """Let every layer return x at once, so that a forward pass is the embedding and the head."""
        calls = self._recorded(x[:1, :2])  # what kind of thing a layer returns is the same for any window

        def forward_of(outputs: int) -> Callable[..., Any]:
            value = (x, *[None] * (outputs - 1)) if outputs else x
            return lambda *args, **kwargs: value

        with ExitStack() as after:
            for layer, call in zip(self.stack, calls, strict=True):
                after.enter_context(restored(layer, "forward"))  # accelerate's own, of a model over several devices
                layer.forward = forward_of(call.outputs)  # type: ignore[method-assign]
            yield

    def _recorded(self, x: Tensor) -> list[_Call]:
        shape = (int(x.shape[0]), int(x.shape[1]))
        if shape not in self._calls:
            calls: list[_Call] = []

            def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                outputs = len(output) if isinstance(output, tuple) else 0
                rest = (None, *args[1:]) if args else ()
                calls.append(_Call(rest, {k: v for k, v in kwargs.items() if k != "hidden_states"}, outputs))

            handles = [layer.register_forward_hook(keep, with_kwargs=True) for layer in self.stack]
            try:
                forward(self.model, self.stack, _some_ids(x), None)
            finally:
                for handle in handles:
                    handle.remove()
            self._calls[shape] = calls
        return self._calls[shape]


def _some_ids(x: Tensor) -> Tensor:
    """Return ids [b, w] for a pass whose tokens do not matter; not 0, which some families take for padding."""
    return torch.full(x.shape[:2], 3, dtype=torch.long, device=x.device)
