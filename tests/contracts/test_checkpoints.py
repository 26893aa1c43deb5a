"""In every family: what is left of a model works with a cache and padding, and its checkpoint loads anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from families import FAMILIES, LAYERS, PAD, VOCAB
from safetensors.torch import load_file, save_file

from rectilinear.core.linear import AffineMap
from rectilinear.models.save import save_model
from rectilinear.models.stack import decoder_stack
from rectilinear.models.surgery import cut_, linear_block

DRAW = torch.Generator().manual_seed(1)
IDS = torch.randint(3, VOCAB, (2, 20), generator=DRAW)  # longer than the sliding windows
LOW = AffineMap(torch.randn(32, 2, generator=DRAW) @ torch.randn(2, 32, generator=DRAW) / 20, torch.ones(32) / 20)
FULL = AffineMap(torch.randn(32, 32, generator=DRAW) / 20, torch.ones(32) / 20)

FORMS = {
    "first": ([0], {}),
    "middle": ([1, 2], {}),
    "last": ([3], {}),
    "scattered": ([0, 2], {}),
    "span": ([2], {1: FULL}),
    "ends": ([], {0: linear_block(LOW, rank=2), 3: FULL}),
}
CASES = list(product(FAMILIES, FORMS))


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def models():
    made = {}
    for family, form in CASES:
        remove, blocks = FORMS[form]
        model = made[family, form] = FAMILIES[family]()
        model.generation_config.eos_token_id = None
        cut_(model, None, remove, blocks)
    return made


@pytest.fixture(scope="module")
def reloaded(models, tmp_path_factory):
    """Return {folder: logits} of all checkpoints, loaded without rectilinear."""
    home = tmp_path_factory.mktemp("checkpoints")
    folders = [home / f"{family}-{form}" for family, form in CASES]
    for folder, model in zip(folders, models.values(), strict=True):
        save_model(model, None, folder)
    save_file({"ids": IDS}, home / "ids")
    script = str(Path(__file__).with_name("reload.py"))
    env = {**os.environ, "HF_MODULES_CACHE": str(home / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, script, str(home / "ids"), str(home / "logits"), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(home / "logits")


@pytest.mark.parametrize(("family", "form"), CASES)
def test_a_checkpoint_gives_the_same_logits_without_rectilinear(family, form, models, reloaded):
    torch.testing.assert_close(reloaded[f"{family}-{form}"], models[family, form](IDS).logits)


@pytest.mark.parametrize(("family", "form"), CASES)
def test_generation_with_cache_and_padding_is_what_the_model_says_without(family, form, models):
    model, pads, new = models[family, form], 6, 8
    padded, mask = IDS.clone(), torch.ones_like(IDS)
    padded[0, :pads], mask[0, :pads] = PAD, 0
    options = {"max_new_tokens": new, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    done = model.generate(padded, attention_mask=mask, **options)
    for row, start in ((0, pads), (1, 0)):
        alone = model(done.sequences[row : row + 1, start:], use_cache=False).logits[0, -new - 1 : -1]
        torch.testing.assert_close(torch.stack(done.logits)[:, row], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stack_is_found_with_blocks_in_it(family, models):
    for form, (remove, blocks) in FORMS.items():
        stack = decoder_stack(models[family, form])
        assert len(stack) == LAYERS - len(remove)
        assert sum(getattr(layer, "is_linear_block", False) for layer in stack) == len(blocks)
