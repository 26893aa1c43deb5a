"""In every family: stand-ins for layers are the cut model, with a cache and without, and leave the model as it was."""

import pytest
import torch
from families import FAMILIES, VOCAB

from rectilinear.core.linear import AffineMap
from rectilinear.models.logits import greedy_step
from rectilinear.models.stack import decoder_stack
from rectilinear.models.surgery import cut_, standing_in

DRAW = torch.Generator().manual_seed(1)
IDS = torch.randint(3, VOCAB, (1, 20), generator=DRAW)  # longer than the sliding windows
MAP = AffineMap(torch.randn(32, 32, generator=DRAW) / 20, torch.ones(32) / 20)


@pytest.mark.parametrize("name", FAMILIES)
def test_stand_ins_are_the_cut_model(name):
    model, cut = FAMILIES[name](), FAMILIES[name]()
    with torch.inference_mode():
        dense = model(IDS).logits
        cut_(cut, None, [2], {1: MAP})
        expected = cut(IDS).logits
        with standing_in(model, decoder_stack(model), {1: MAP, 2: None}):
            torch.testing.assert_close(model(IDS).logits, expected, atol=1e-4, rtol=1e-4)
            ids = [IDS]
            token, cache = greedy_step(model, IDS)
            for _ in range(6):
                ids.append(token)
                token, cache = greedy_step(model, token, cache)
            said = cut(torch.cat(ids, 1)).logits[0, -1]
            assert float(said[token]) == pytest.approx(float(said.max()), abs=1e-4)
        torch.testing.assert_close(model(IDS).logits, dense)
