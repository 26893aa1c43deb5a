import json

import pytest
import torch
from families import FAMILIES, LAYERS

import tiny
from rectilinear.core.moments import Moments
from rectilinear.data.pieces import from_ids
from rectilinear.errors import ModelError, TextError
from rectilinear.models.load import skeleton
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.forecast import bytes_by_device, forecast
from rectilinear.ops.layers import Gatherer
from rectilinear.ops.parts import Submodules
from rectilinear.ops.passes import Pass, run_pass


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_foretold_from_its_configuration(family, tmp_path):
    model = FAMILIES[family]()
    model.config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    told, whole = forecast(skeleton(str(tmp_path), device="cpu"), window=32), forecast(model, window=32)
    assert told == whole
    assert (told.layers, told.width, told.window) == (LAYERS, 32, 32)


def test_the_numbers_follow_the_options():
    model = tiny.llama(max_position_embeddings=64)
    told = forecast(model, tokens=1000, window=512, holdout=0.25, batch_tokens=128)
    assert told.tokens == 1000 and told.tokens_per_d == {"paper": 31.25, "heldout": 23.438}
    assert told.window == 64
    assert told.batches == 6 + 2  # 750 and 250 tokens, in twelve and four windows, two a batch
    assert told.weights_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert forecast(model).tokens == 16_384
    everything = forecast(model, tokens="all")
    assert (everything.tokens, everything.tokens_per_d, everything.batches) == (None, None, None)
    assert json.dumps(vars(told))


@pytest.mark.parametrize("submodules", [False, True])
@pytest.mark.parametrize("sinks", [False, True])
def test_the_memory_is_what_a_scan_keeps(submodules, sinks):
    model = tiny.llama()
    gatherer = Gatherer(3, sink_multiple=1.0 if sinks else 1e9, sample_per_batch=1, seed=0)
    parts = Submodules(gatherer) if submodules else None
    pieces = from_ids(torch.randint(0, tiny.VOCAB, (8, 16)).numpy(), None, holdout=0.25)
    run_pass(Pass(model, decoder_stack(model), pieces, gatherer, parts, 64))
    kept = nbytes(gatherer.layers[-1].outputs)
    for pair in (*gatherer.pairs(), *(parts.pairs() if parts else ())):
        kept += nbytes(pair.ordinary) + (nbytes(pair.sink) if pair.sink else 0)
        for held in (pair.heldout, pair.heldout_ordinary):
            kept += held.map.weight.nbytes + held.map.bias.nbytes if held else 0
    told = forecast(model, submodules=submodules)
    assert kept == (told.moments_bytes_most if sinks else told.moments_bytes)


def test_layers_are_dealt_out_as_they_would_be_loaded(monkeypatch):
    model = tiny.llama()
    told = forecast(model)
    assert bytes_by_device(model, told, "cpu") == {
        "cpu": {"weights": told.weights_bytes, "moments": told.moments_bytes_most}
    }
    memory = {0: 100_000, 1: 100_000, "cpu": 10**9}
    monkeypatch.setattr("accelerate.utils.modeling.get_max_memory", lambda *_: dict(memory))
    found = bytes_by_device(model, told, "balanced")
    assert "cuda:1" in found
    assert sum(held["weights"] for held in found.values()) == told.weights_bytes
    one = sum(weight.nbytes for weight in model.model.layers[0].parameters())
    share = told.moments_bytes_most // 3
    assert sum(held["moments"] for held in found.values()) == 3 * share
    for held in found.values():  # moments lie where their layers do
        assert held["weights"] >= held["moments"] // share * one


def test_what_a_scan_would_refuse_is_refused():
    for options, error in (
        ({"holdout": 1.0}, TextError),
        ({"window": 0}, TextError),
        ({"layers_path": "model.norm"}, ModelError),
    ):
        with pytest.raises(error):
            forecast(tiny.llama(), **options)


def nbytes(moments: Moments) -> int:
    return sum(value.nbytes for value in vars(moments).values() if isinstance(value, torch.Tensor))
