"""What a model is given for a while: the mode that it is measured in, attributes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(*models: nn.Module) -> Iterator[None]:
    """Switch dropout off; what each model's mode was is restored."""
    before = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, training in zip(models, before, strict=True):
            model.train(training)


@contextmanager
def restored(model: nn.Module, *names: str) -> Iterator[None]:
    """Let attributes of the object itself, whatever is put on it meanwhile, be as they were afterwards."""
    before = {name: vars(model)[name] for name in names if name in vars(model)}
    try:
        yield
    finally:
        for name in names:
            vars(model).pop(name, None)
        vars(model).update(before)
