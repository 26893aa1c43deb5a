import os

import pytest
import torch
from gguf import GGUFReader
from tqdm.auto import tqdm

import tiny
from rectilinear.errors import ModelError
from rectilinear.models.gguf import folder_of
from rectilinear.models.load import load, skeleton


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("RECTILINEAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_gguf_is_converted_once_and_in_silence(tmp_path, cache, capfd):
    path, bars = tiny.gguf(tmp_path / "tiny.gguf"), tqdm.__init__
    capfd.readouterr()
    model, tokenizer = load(str(path), device="cpu")
    assert capfd.readouterr() == ("", "")
    assert tqdm.__init__ is bars
    weights = {tensor.name: torch.tensor(tensor.data) for tensor in GGUFReader(path).tensors}
    assert torch.equal(model.model.embed_tokens.weight, weights["token_embd.weight"])
    assert torch.equal(model.model.layers[1].mlp.down_proj.weight, weights["blk.1.ffn_down.weight"])
    assert tokenizer("ab a")["input_ids"] == [3, 5]
    [folder] = (cache / "gguf").iterdir()
    before = (folder / "config.json").stat().st_mtime_ns
    load(str(path), device="cpu")
    assert (folder / "config.json").stat().st_mtime_ns == before
    (folder / "model.safetensors").unlink()
    assert skeleton(str(path), device="cpu").config.num_hidden_layers == 2


def test_the_structure_is_known_without_a_conversion(tmp_path, cache):
    path = tiny.gguf(tmp_path / "tiny.gguf")
    shapes = {name: weight.shape for name, weight in skeleton(str(path), device="cpu").named_parameters()}
    assert not cache.exists()
    model, _ = load(str(path), device="cpu")
    assert {name: weight.shape for name, weight in model.named_parameters()} == shapes
    path.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="as a GGUF model"):
        skeleton(str(path), device="cpu")


def test_another_file_of_the_same_name_has_another_place(tmp_path):
    path = tmp_path / "some.gguf"
    path.write_bytes(b"x")
    first = folder_of(path)
    os.utime(path, ns=(0, 0))
    assert folder_of(path) != first


def test_a_damaged_gguf_leaves_nothing_behind(tmp_path, cache):
    for content in (b"not a gguf", b"GGUF\x03\0\0\0" + b"\xff" * 16, b""):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot read .*bad\.gguf as a GGUF model") as error:
            load(str(path))
        assert "\n" not in str(error.value)
    assert not [p for p in cache.rglob("*") if p.is_file()]
