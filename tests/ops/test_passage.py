"""The passage a scan keeps: the right tokens, the right errors, no more of them with more text."""

import numpy as np
import pytest
import torch

import rectilinear
import tiny
from rectilinear.models.stack import decoder_stack, forward, watch
from rectilinear.ops.passage import LONGEST


def test_errors_are_those_of_the_map_of_the_rest_on_the_first_held_out_window():
    model = tiny.llama()
    ids = torch.randint(1, tiny.VOCAB, (40, 16), generator=torch.Generator().manual_seed(3))
    result = rectilinear.scan(model, input_ids=ids, holdout=0.25)
    assert (result.passage.document, result.passage.position) == (30, 0)
    assert result.passage.tokens == tuple(str(token) for token in ids[30].tolist())
    stack, seen = decoder_stack(model), {}
    with torch.inference_mode(), watch(stack, lambda i, x, y: seen.update({i: (x.double(), y.double())})):
        forward(model, stack, ids, None)
    for i, (x, y) in seen.items():
        rows, added = x.reshape(-1, 32), (y - x).reshape(-1, 32)
        one = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], 1)
        missed = added - one @ torch.linalg.lstsq(one[:480], added[:480]).solution
        wanted = (missed.norm(dim=1) / added.norm(dim=1))[480:496]
        assert result.arrays["passage_error"][i] == pytest.approx(wanted.numpy(), rel=1e-4)


def test_it_is_no_longer_with_more_text_and_within_one_window():
    model, many = tiny.llama(), tiny.documents(30, words=400)
    for window, batch, length in ((512, 4096, LONGEST), (100, 4096, 100), (512, 500, LONGEST)):
        result = rectilinear.scan(model, tiny.tokenizer(), many, window=window, batch_tokens=batch)
        assert result.arrays["passage_error"].shape == (3, length)
        first = many[result.passage.document].split()
        assert list(result.passage.tokens) == first[:length]
        assert result.provenance["tokens_heldout"] > 10 * length


def test_sinks_are_marked_and_a_layer_that_adds_nothing_has_no_error():
    model = tiny.massive()
    with torch.no_grad():
        for part in (model.model.layers[1].self_attn.o_proj, model.model.layers[1].mlp.down_proj):
            part.weight.zero_()
    result = rectilinear.scan(model, tiny.tokenizer(), ["w7 " + text for text in tiny.documents()])
    assert result.passage.tokens[0] == "w7"
    assert result.arrays["passage_sink"][:, 0].all()
    assert not result.arrays["passage_sink"][:, 1].any()
    assert np.isnan(result.arrays["passage_error"][1]).all()
    assert np.isfinite(result.arrays["passage_error"][[0, 2]]).all()


def test_nothing_held_out_keeps_nothing():
    result = rectilinear.scan(tiny.llama(), tiny.tokenizer(), tiny.documents(), holdout=0)
    assert result.passage is None
    assert not [name for name in result.arrays if name.startswith("passage")]
