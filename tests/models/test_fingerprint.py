"""Fingerprints tell weights apart by all of their numbers, wherever they lie and in whatever precision."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import nn

import tiny
from rectilinear.errors import ResultError
from rectilinear.models.checksum import CHUNK, checksum
from rectilinear.models.load import earlier_fingerprint, fingerprint, tokenizer_fingerprint
from rectilinear.ops.maps import Maps


def changed(change, **options):
    """Return the fingerprint of the tiny model after a change."""
    model = tiny.llama(**options)
    with torch.no_grad():
        change(model)
    return fingerprint(model)


def test_any_number_counts_and_so_does_its_place():
    whole = fingerprint(tiny.llama())
    assert whole == fingerprint(tiny.llama()) and whole.startswith("2-")

    def swap(model):
        weight = model.model.layers[2].mlp.up_proj.weight
        weight[[3, 40]] = weight[[40, 3]]

    def sink(model):
        model.model.embed_tokens.weight[7] *= 500

    def last(model):
        model.lm_head.weight[-1, -1] = torch.nextafter(model.lm_head.weight[-1, -1], torch.tensor(9.0))

    found = {whole, *map(changed, (swap, sink, last))}
    assert len(found) == 4
    assert earlier_fingerprint(tiny.llama()) == earlier_fingerprint(tiny.massive())  # which is why there is another


def test_maps_of_an_earlier_version_are_known_by_their_fingerprint():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    facts = {"model": "tiny", "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)}
    for known in (fingerprint(model), earlier_fingerprint(model)):
        Maps((), (), (), (), {**facts, "fingerprint": known}).check(model, tokenizer)
    with pytest.raises(ResultError, match="expected maps of"):
        Maps((), (), (), (), {**facts, "fingerprint": fingerprint(tiny.massive())}).check(model, tokenizer)


def test_a_buffer_that_is_saved_counts():
    model = tiny.llama()
    model.register_buffer("scale", torch.ones(3))
    first = fingerprint(model)
    model.scale[1] = 2
    assert fingerprint(model) != first != fingerprint(tiny.llama())


@pytest.mark.parametrize("size", [1, 2, 7, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_a_sum_is_exact_in_any_precision_and_from_any_place(size):
    values = torch.randn(size + 1, generator=torch.Generator().manual_seed(size)).bfloat16()
    for precise in (values.float(), values.float().half().float()):
        assert checksum(precise[1:]) == checksum(precise[1:].clone())
    assert checksum(values[1:]) == checksum(values[1:].float()) == checksum(values[1:].double())
    words = values[1:].float().numpy().tobytes()
    words += bytes(-len(words) % 8)
    total = sum(int.from_bytes(words[i : i + 8], "little") for i in range(0, len(words), 8)) % 2**64
    assert checksum(values[1:])[-8:] == total.to_bytes(8, "little")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.bool])
def test_integers_count_by_their_bytes(dtype):
    values = torch.arange(99).reshape(9, 11).to(dtype)
    other = values.clone()
    other[8, 10] = 0
    assert checksum(values) == checksum(values.t().contiguous().t()) != checksum(other)


class Packed(nn.Parameter):
    """As quantisers' own kinds of weights are: another class over integers."""


def test_quantised_weights_count():
    def packed(last):
        model = tiny.llama()
        model.lm_head.weight = Packed(torch.tensor([*range(99), last], dtype=torch.uint8), requires_grad=False)
        return model

    assert fingerprint(packed(1)) == fingerprint(packed(1)) != fingerprint(packed(2))


@pytest.mark.parametrize("offload", [cpu_offload, disk_offload])
def test_weights_that_lie_elsewhere_count_as_those_in_memory(offload, tmp_path):
    found = []
    for model in (tiny.llama(), tiny.massive(), tiny.llama(tie_word_embeddings=True)):
        whole = fingerprint(model)
        offload(model, **({"offload_dir": tmp_path / str(len(found))} if offload is disk_offload else {}))
        assert {weight.device.type for weight in model.parameters()} == {"meta"}
        found.append(fingerprint(model))
        assert found[-1] == whole
    assert len(set(found)) == 3


def test_threads_make_no_difference():
    values = torch.randn(3 * CHUNK + 5, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.add(checksum(values))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
