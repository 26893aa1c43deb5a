"""Every family is healed, by logits through adapters, by streams in all parameters; a checkpoint goes on as it was."""

import pytest
import torch
from families import FAMILIES

import tiny
from rectilinear.ops.heal import heal
from rectilinear.ops.prune import prune

TEXTS = [text + " " for text in tiny.documents(20)]


class Stop(Exception):
    pass


def stop_at_three(state):
    if state.task == "healing" and state.done >= 3 * 64:
        raise Stop


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_healed_and_resumed(name, tmp_path):
    dense, tokenizer = FAMILIES[name](), tiny.tokenizer()
    cut = prune(dense, tokenizer, texts=TEXTS, layers=[1], repair="none", tokens=None, window=32)
    for loss, train in (("kl", "lora"), ("mse", "all")):
        options = {
            "texts": TEXTS,
            "plan": cut.plan,
            "loss": loss,
            "train": train,
            "window": 32,
            "batch": 2,
            "steps": 4,
            "holdout": 2,
        }
        whole = heal(cut.model, dense, tokenizer, **options)
        old = dict(cut.model.named_parameters())
        assert old.keys() == dict(whole.model.named_parameters()).keys()
        assert any(not torch.equal(p, old[n]) for n, p in whole.model.named_parameters())
        options["checkpoints"] = tmp_path / train
        with pytest.raises(Stop):
            heal(cut.model, dense, tokenizer, on_progress=stop_at_three, **options)
        again = heal(cut.model, dense, tokenizer, resume=True, **options)
        for (_, a), (_, b) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
            torch.testing.assert_close(a, b)
