"""What all trainings share, where no training is needed to see it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rectilinear.errors import ModelError
from rectilinear.models.mode import restored
from rectilinear.ops.training.loop import arguments


def test_a_model_on_another_gpu_than_the_first_is_refused(tmp_path):
    model = SimpleNamespace(device=torch.device("cuda:1"))
    with pytest.raises(ModelError, match=r"on the first GPU to train.*got cuda:1: set CUDA_VISIBLE_DEVICES=1"):
        arguments(model, None, tmp_path)


def test_what_was_on_a_model_is_there_again_and_what_was_not_is_gone():
    module = nn.Identity()
    module.forward = mine = lambda x: x + 1
    with pytest.raises(RuntimeError), restored(module, "forward", "other"):
        module.forward, module.other = None, 1
        raise RuntimeError
    assert module.forward is mine and not hasattr(module, "other")
