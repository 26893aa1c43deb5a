"""Healing of tiny cut models in few steps."""

import torch

from rectilinear.ops.heal import heal

OPTIONS = {"window": 32, "batch": 2, "steps": 3, "holdout": 4}


def healed(cut, dense, tokenizer, texts, **options):
    return heal(cut.model, dense, tokenizer, texts=texts, plan=cut.plan, **{**OPTIONS, **options})


def changed(before, after):
    """Return the names of parameters that differ."""
    old = dict(before.named_parameters())
    assert old.keys() == dict(after.named_parameters()).keys()
    return {name for name, parameter in after.named_parameters() if not torch.equal(parameter, old[name])}


class Stop(Exception):
    pass


def until(step):
    def on_progress(state):
        if state.task == "healing" and state.done >= step * 64:
            raise Stop

    return on_progress
