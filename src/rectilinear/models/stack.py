"""Find the decoder stack of any model by its structure, and watch the residual stream through it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rectilinear.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 8  # lists named in an error


def decoder_stack(model: PreTrainedModel, path: str | None = None) -> nn.ModuleList:
    """Return the layers: the one ModuleList of `num_hidden_layers` elements of a single type, linear blocks aside.

    `path` names it where the rule cannot decide. Raises ModelError, with the lists to choose from, where there is no
    such ModuleList or several, or none at `path`.
    """
    if path is not None:
        return _named(model, path)
    wanted = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    candidates = {
        name: module
        for name, module in _lists(model).items()
        if len(module) == wanted and len({type(element) for element in module if not is_block(element)}) <= 1
    }
    # As many experts or heads as layers: such a list lies inside the stack's own layers.
    outer = {n: m for n, m in candidates.items() if not any(n.startswith(f"{other}.") for other in candidates)}
    if len(outer) == 1:
        return next(iter(outer.values()))
    if outer:
        raise ModelError(
            f"expected one stack of {wanted} layers, got {len(outer)}: {', '.join(outer)}; name one with --layers-path"
        )
    raise ModelError(f"expected a stack of {wanted} layers of one type, got none; {_seen(model)}")


def width(model: PreTrainedModel) -> int:
    """Return d, the size of the stream; embeddings may be of another size and projected (OPT-350m)."""
    return int(model.config.get_text_config().hidden_size)


def context_limit(model: PreTrainedModel) -> int | None:
    """Return the longest context in tokens, None where the configuration names none."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None


def base_model(model: PreTrainedModel, stack: nn.ModuleList) -> nn.Module:
    """Return the module to call for a forward pass without the language-model head."""
    base = model.base_model
    return base if any(module is stack for module in base.modules()) else model


def forward(model: PreTrainedModel, stack: nn.ModuleList, input_ids: Tensor, attention_mask: Tensor | None) -> None:
    """Run input_ids [b, w] through the stack, for the hooks on it; no head, no cache.

    attention_mask [b, w] is 1 at real tokens and 0 at pads, None where every token is real.
    """
    base = base_model(model, stack)
    accepted = inspect.signature(base.forward).parameters
    options: dict[str, Any] = {"use_cache": False, "attention_mask": attention_mask}
    if attention_mask is not None and not bool(attention_mask[:, 0].all()):
        # Padded on the left: most families with learned positions would count the pads in.
        options["position_ids"] = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
    with suppress(_Enough):
        base(input_ids=input_ids, **{name: value for name, value in options.items() if name in accepted})


class _Enough(Exception):
    """The last layer that is watched has been passed: the rest of the forward pass is left out."""


@contextmanager
def watch(
    stack: nn.ModuleList, on_layer: Callable[[int, Tensor, Tensor], None], layers: Sequence[int] | None = None
) -> Iterator[None]:
    """Call `on_layer(i, x, y)` after each layer with its input x and raw output y, both [b, w, d], not copied.

    With `layers`, in order, only after those, and `forward` ends where the last of them does. The last y of all is
    position L of the stream, before the final norm, which no `hidden_states` of transformers gives.
    The hooks are removed on leaving, after an exception too.
    """

    def hook(index: int) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            on_layer(index, layer_input(args, kwargs), first(output))

        return seen

    def enough(module: nn.Module, args: tuple[Any, ...]) -> None:
        raise _Enough

    watched = range(len(stack)) if layers is None else layers
    handles = [stack[i].register_forward_hook(hook(i), with_kwargs=True) for i in watched]
    if watched[-1] + 1 < len(stack):
        handles.append(stack[watched[-1] + 1].register_forward_pre_hook(enough))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded(stack: nn.ModuleList) -> Iterator[list[Tensor]]:
    """Give a list that a forward pass fills with the stream's positions 0..L, each [b, w, d], gradients and all.

    L is before the final norm. Every pass starts the list anew. The tensors are the model's own, not copied.
    """
    positions: list[Tensor] = []

    def on_layer(index: int, x: Tensor, y: Tensor) -> None:
        if index == 0:
            positions[:] = [x]
        positions.append(y)

    with watch(stack, on_layer):
        yield positions


def is_block(layer: nn.Module) -> bool:
    """Tell whether a linear block stands in this place of the stack."""
    return getattr(layer, "is_linear_block", False)


def layer_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the stream [b, w, d] among a layer's arguments."""
    return args[0] if args else kwargs["hidden_states"]


def first(output: Any) -> Any:
    """Return a module's main output: some families return tuples."""
    return output[0] if isinstance(output, tuple) else output


def _named(model: nn.Module, path: str) -> nn.ModuleList:
    try:
        found = model.get_submodule(path)
    except AttributeError:
        raise ModelError(f"expected a module at --layers-path {path!r}, got none; {_seen(model)}") from None
    if not isinstance(found, nn.ModuleList) or not len(found):
        raise ModelError(f"expected a ModuleList with layers at {path!r}, got {type(found).__name__}; {_seen(model)}")
    return found


def _lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)}


def _seen(model: nn.Module) -> str:
    seen = [f"{name} ({len(found)} {type(found[0]).__name__})" for name, found in _lists(model).items()]
    more = f" and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
    if not seen:
        return "the model holds no lists of modules"
    return f"lists of modules here: {', '.join(seen[:SHOWN])}{more}; name one with --layers-path"
