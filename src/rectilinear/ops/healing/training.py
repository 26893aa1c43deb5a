"""What trains: the repaired projections, the linear blocks, low-rank adapters, or every parameter."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rectilinear.errors import ModelError
from rectilinear.models.projection import output_projection
from rectilinear.ops.healing.places import Place

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "healing"


@dataclass(frozen=True)
class Chosen:
    """Parameters that train, or modules that get adapters of a rank; count: numbers that train."""

    parameters: tuple[nn.Parameter, ...] = ()
    modules: tuple[nn.Module, ...] = ()
    rank: int = 0

    @property
    def count(self) -> int:
        """Return how many numbers train."""
        weights: list[Any] = [module.weight for module in self.modules]
        adapters = sum(self.rank * sum(weight.shape) for weight in weights)
        return adapters + sum(parameter.numel() for parameter in self.parameters)


def chosen(model: PreTrainedModel, found: Sequence[Place], train: str, rank: int) -> Chosen:
    """Return what `train` means for a model: repaired, maps, lora (adapters of `rank`) or all.

    Raises ModelError where the model has nothing of the kind, and for adapters where peft is not installed.
    """
    if train == "lora":
        return adapted([place.layer for place in found if not place.block], rank)
    if train == "all":
        return Chosen(tuple(model.parameters()))
    blocks = [parameter for place in found if place.block for parameter in place.layer.parameters()]
    if train == "maps":
        if not blocks:
            raise ModelError(
                "expected linear blocks to train, got a model without: cut it with --repair linear or patch, or train "
                "repaired, lora or all"
            )
        return Chosen(tuple(blocks))
    projections = [parameter for place in found if place.before_cut for parameter in _projection(place.layer)]
    if not projections + blocks:
        raise ModelError("expected a layer before a cut or a linear block, got neither: train lora or all")
    return Chosen((*projections, *blocks))


@contextmanager
def training(model: PreTrainedModel, picked: Chosen) -> Iterator[None]:
    """Let gradients reach what was chosen and nothing else; adapters are put in, and merged on leaving.

    On leaving by an exception adapters are taken out again, and the weights below them are as they were. What trains
    and what does not is restored.
    """
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.requires_grad_(False)
    merge = _with_adapters(model, picked) if picked.modules else None
    for parameter in picked.parameters:  # after the adapters, which switch off all but themselves
        parameter.requires_grad_(True)
    done = False
    try:
        yield
        done = True
    finally:
        if merge is not None:
            merge(done)
        for parameter, required in before:
            parameter.requires_grad_(required)


def _projection(layer: nn.Module) -> Iterator[nn.Parameter]:
    try:
        module = output_projection(layer).module
    except ModelError as error:
        said = str(error).rpartition(":")[0]
        raise ModelError(f"{said}: there is no repaired projection to train, train lora or all") from error
    yield from module.parameters(recurse=False)


def adapted(layers: Iterable[nn.Module], rank: int) -> Chosen:
    """Return the projections of layers, attention's and the MLP's, to get adapters.

    Raises ModelError where there are none, or where peft is not installed.
    """
    peft_lora()  # asked for now, not after the first evaluation
    modules = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear | Conv1D)]
    if not modules:
        raise ModelError("expected projections of attention and MLP to adapt, got none: train all parameters")
    return Chosen(modules=tuple(modules), rank=rank)


def peft_lora() -> Any:
    """Return peft's module of low-rank adapters; raises ModelError where it is not installed."""
    try:
        return importlib.import_module("peft.tuners.lora")
    except ImportError as error:
        raise ModelError("expected the package peft for lora, got none: pip install 'rectilinear[train]'") from error


def _with_adapters(model: PreTrainedModel, picked: Chosen) -> Callable[[bool], None]:
    """Put adapters into the model, in place; return what takes them out again, merged or not."""
    lora = peft_lora()
    wanted = set(picked.modules)
    names = [name for name, module in model.named_modules() if module in wanted]
    config = lora.LoraConfig(
        r=picked.rank,
        lora_alpha=2 * picked.rank,
        target_modules=names,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in wanted),
    )
    # Not get_peft_model: with its wrapper around it the model would no longer be of its own class.
    tuner = lora.LoraModel(model, config, ADAPTER)

    def take_out(merged: bool) -> None:
        with torch.no_grad():
            tuner.merge_and_unload() if merged else tuner.unload()

    return take_out
