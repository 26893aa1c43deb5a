"""What in a model follows from layer numbers and counts, found by building it anew from its config."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rectilinear.errors import ModelError
from rectilinear.models.layer_config import keep_layers_
from rectilinear.models.stack import is_block

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Where modules keep the number of their layer.
NUMBER = re.compile(r"(layer|block)_?(idx|id|index|num|number)")
PLAIN = (bool, int, float, str, type(None), list, tuple)


@dataclass(frozen=True)
class _Change:
    module: str  # path below the layer, or below the model
    key: str
    old: Any
    new: Any


class Changes:
    """What layers and the modules around them remember of layer numbers and counts, as it is after the cut.

    Found by building the model without weights from its config before and after: only what loading the cut model will
    give can be right, whatever a family derives from a layer's number.
    """

    def __init__(self, model: PreTrainedModel, path: str, kept: Sequence[int], linear: Collection[int]) -> None:
        """Raise ModelError where the config cannot make the layers `kept` what they were; those in `linear` are free.

        path: of the stack in the model. Numbers are those before the cut.
        """
        before, after = _build(model, None), _build(model, kept)
        olds, news = before.get_submodule(path), after.get_submodule(path)
        if len(news) != len(kept):
            raise ModelError(f"expected a config cut to {len(kept)} layers to make as many, got {len(news)}")
        self.layers = [list(_differences(olds[old], news[new])) for new, old in enumerate(kept)]
        for new, old in enumerate(kept):
            if old not in linear:
                _check(self.layers[new], old, new, len(olds), len(kept))
        self.around = list(_differences(before, after, skip=path))
        odd = next((change for change in self.around if change.key in ("", "shape")), None)
        if odd is not None:
            raise ModelError(f"cannot cut this family: its {odd.module} depends on the number of layers")


def apply_(root: nn.Module, changes: Sequence[_Change]) -> None:
    """Set the attributes of `root` and the modules in it that change; nothing in a linear block."""
    if is_block(root):
        return
    for change in changes:
        setattr(root.get_submodule(change.module), change.key, change.new)


def _build(model: PreTrainedModel, kept: Sequence[int] | None) -> Any:
    kind: Any = getattr(type(model), "plain_class", type(model))
    # Through a dictionary, as from a file: what a family works out anew on loading has to come out right.
    config: Any = type(model.config).from_dict(copy.deepcopy(model.config.to_dict()))
    try:
        if kept is not None:
            keep_layers_(config.get_text_config(), kept)
            config = type(config).from_dict(config.to_dict())
        with torch.device("meta"):
            return kind(config)
    except Exception as error:  # a family's own checks of its config may raise anything
        raise ModelError(f"cannot describe the cut model by a {type(config).__name__}: {error}") from error


def _differences(before: nn.Module, after: nn.Module, skip: str | None = None) -> Iterator[_Change]:
    """Yield the modules, parameter shapes and plain attributes that differ; none below the path `skip`."""

    def parts(root: nn.Module) -> dict[str, dict[str, Any]]:
        found = {n: m for n, m in root.named_modules() if skip is None or not f"{n}.".startswith(f"{skip}.")}
        plain = {n: {k: v for k, v in vars(m).items() if _is_plain(k, v)} for n, m in found.items()}
        shapes = {
            f"{n}.{k}".strip("."): {"shape": p.shape}
            for n, m in found.items()
            for k, p in m.named_parameters("", False)
        }
        return plain | shapes

    olds, news = parts(before), parts(after)
    for name in sorted(olds.keys() | news.keys()):
        if name not in olds or name not in news:
            yield _Change(name, "", name in olds, name in news)
            continue
        for key, old in olds[name].items():
            if news[name].get(key) != old:
                yield _Change(name, key, old, news[name].get(key))


def _is_plain(key: str, value: Any) -> bool:
    return not key.startswith("_") and isinstance(value, PLAIN)


def _check(changes: Sequence[_Change], old: int, new: int, before: int, after: int) -> None:
    for change in changes:
        listed = isinstance(change.old, list | tuple) and len(change.old) == before and len(change.new) == after
        if not NUMBER.fullmatch(change.key) and not listed:
            what = ".".join(part for part in (change.module, change.key) if part)
            raise ModelError(
                f"cannot move layer {old} to place {new}: its {what} follows from a layer's place in this family, and "
                "the config has no way to say otherwise; choose layers that leave it in place"
            )
