"""Weights that a model's files lack are not made up for by random numbers."""

import shutil

import pytest
import torch
import transformers as hf
from families import FAMILIES
from safetensors.torch import load_file, save_file

import tiny
from rectilinear.core.linear import AffineMap
from rectilinear.errors import ModelError
from rectilinear.models import gguf
from rectilinear.models.load import load
from rectilinear.models.save import save_model
from rectilinear.models.surgery import cut_
from rectilinear.ops.evaluate import perplexity
from rectilinear.ops.scan import scan


@pytest.fixture
def model(folder, tmp_path):
    """A copy of the tiny model that a test may damage."""
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def edit(folder, change):
    """Change the weights of a folder, or some of them, as a dictionary."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def put(folder, model):
    """Save a model without its tokenizer's help: a tiny one lies beside it."""
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


K = "model.layers.1.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.clear(), "expected weights in the files of .*, got none"),
        (lambda weights: weights.update(other=weights.pop(K)), f"got none for 1, as {K}"),
        (lambda weights: weights.pop("model.embed_tokens.weight"), "got none for 1, as model.embed_tokens.weight"),
    ],
)
@pytest.mark.parametrize("outputs", [None, 2])
def test_missing_weights_of_the_decoder_are_an_error(change, said, outputs, model):
    edit(model, change)
    with pytest.raises(ModelError, match=said):
        load(str(model), device="cpu", outputs=outputs)


def test_weights_of_a_gguf_too(tmp_path, monkeypatch):
    monkeypatch.setenv("RECTILINEAR_CACHE", str(tmp_path / "cache"))
    path = tiny.gguf(tmp_path / "x.gguf")
    data = path.read_bytes()
    assert data.count(b"blk.1.attn_k.weight") == 1
    path.write_bytes(data.replace(b"blk.1.attn_k.weight", b"blk.1.xxxx_k.weight"))
    with pytest.raises(ModelError, match=r"expected all weights of .*x.gguf.*k_proj"):
        load(str(path), device="cpu")
    assert not (gguf.folder_of(path)).exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_models_and_bodies_load_in_every_family(family, tmp_path):
    whole = FAMILIES[family]()
    again = load(put(tmp_path / "whole", whole), device="cpu")[0]
    assert again.drawn == () and again.unread == ()
    bare = load(put(tmp_path / "body", whole.base_model), device="cpu")[0]
    assert bool(bare.drawn) is not bool(whole.config.tie_word_embeddings)


def test_a_model_with_linear_blocks_is_whole_without_their_layers(tmp_path):
    cut = FAMILIES["llama"]()
    cut_(cut, None, [2], {1: AffineMap(torch.ones(32, 32), torch.ones(32))})
    save_model(cut, tiny.tokenizer(), tmp_path)
    assert len(load(str(tmp_path), device="cpu")[0].model.layers) == 3
    edit(tmp_path, lambda weights: weights.pop("model.layers.1.bias"))
    with pytest.raises(ModelError, match=r"got none for 1, as model.layers.1.bias"):
        load(str(tmp_path), device="cpu")


def test_a_head_that_is_not_there_is_missed_by_what_needs_one(tmp_path):
    texts = tiny.documents(8)
    bare, tokenizer = load(put(tmp_path / "body", tiny.llama().model), device="cpu")
    whole = scan(tiny.llama(), tokenizer, texts, window=16, tokens=200)
    assert scan(bare, tokenizer, texts, window=16, tokens=200).layers == whole.layers
    for use in (
        lambda: perplexity(bare, tokenizer, texts, window=16),
        lambda: bare.generate(torch.tensor([[1, 2]]), max_new_tokens=2),
    ):
        with pytest.raises(ModelError, match=r"expected a head for language, got .*body' without lm_head.weight"):
            use()
    with pytest.raises(ModelError, match="expected a model with a head for language to write"):
        save_model(bare, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model, _ = load(str(tmp_path / "body"), device="cpu", outputs=2)
    assert model(torch.tensor([[1, 2]])).logits.shape == (1, 2)  # the head is asked for, and starts from anywhere


def test_weights_of_layers_that_are_not_read_are_said(model):
    config = hf.AutoConfig.from_pretrained(model)
    config.num_hidden_layers = 2
    config.save_pretrained(model)
    loaded, tokenizer = load(str(model), device="cpu")
    assert len(loaded.unread) == 9
    [said] = [line for line in scan(loaded, tokenizer, tiny.documents(8), window=16).warnings if "not read" in line]
    assert said.startswith("9 weights of layers have no place in the model and were not read, as model.layers.2.")


def test_an_adapter_beside_a_model_is_put_on_and_must_be_whole(model):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        hf.AutoModelForCausalLM.from_pretrained(model),
        peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
    ).eval()
    adapted.save_pretrained(model)
    ids = torch.tensor([[1, 2, 3]])
    with torch.inference_mode():
        torch.testing.assert_close(load(str(model), device="cpu")[0](ids).logits, adapted(ids).logits)
    kept = load_file(model / "adapter_model.safetensors")
    kept.pop(next(iter(kept)))
    save_file(kept, model / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"expected all weights of .* got none for 1"):
        load(str(model), device="cpu")
    edit(model, lambda weights: weights.pop(K))
    with pytest.raises(ModelError, match=r"expected all weights of .* got none for 1, as .*k_proj"):
        load(str(model), device="cpu")
    (model / "adapter_model.safetensors").rename(model / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"expected the weights of the adapter in .* as adapter_model.safetensors"):
        load(str(model), device="cpu")
