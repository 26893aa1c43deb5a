import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as hf
from families import FAMILIES
from safetensors import SafetensorError
from safetensors.torch import load_file

import rectilinear
from rectilinear.core.linear import AffineMap
from rectilinear.errors import ModelError
from rectilinear.models import linear_block as blocks_file
from rectilinear.models import save
from rectilinear.models.auto import register
from rectilinear.models.load import load
from rectilinear.models.save import save_model
from rectilinear.models.stack import decoder_stack
from rectilinear.models.surgery import cut_, linear_block
from tiny import VOCAB, llama, tokenizer

IDS = torch.arange(3, 13)[None]
MAP = AffineMap(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)) / 20, torch.ones(32) / 20)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def with_block(**options):
    model = llama(**options)
    cut_(model, None, [0], {1: MAP})
    return model


def test_rectilinear_loads_what_it_saved_without_trust(tmp_path):
    model = with_block(tie_word_embeddings=True)
    save_model(model, tokenizer(), tmp_path / "cut")
    again, words = load(str(tmp_path / "cut"), device="cpu")
    assert isinstance(again, hf.LlamaForCausalLM) and again.config.model_type == "llama"
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert words("w3 w4")["input_ids"] == [3, 4]
    assert rectilinear.scan(again, input_ids=torch.randint(1, VOCAB, (8, 32))).layers[0].score.paper == pytest.approx(1)


def test_what_it_saved_is_found_before_anything_was_loaded(tmp_path):
    save_model(with_block(), tokenizer(), tmp_path / "cut")
    code = "import sys; from rectilinear.models.load import check_found; print(check_found(sys.argv[1]).model_type)"
    command = [sys.executable, "-c", code, str(tmp_path / "cut")]  # another process: here it is registered already
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "rectilinear_linear"


def test_a_checkpoint_with_blocks_passes_through_transformers_unharmed(tmp_path):
    register()
    model = with_block()
    save_model(model, None, tmp_path / "one")
    options = {"attn_implementation": "eager", "dtype": torch.bfloat16}
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "one", **options)
    assert again.config._attn_implementation == "eager" and again.dtype == torch.bfloat16
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    last = blocks_file.RectilinearForCausalLM.from_pretrained(tmp_path / "two")
    assert torch.equal(last(IDS).logits, model(IDS).logits)
    assert (tmp_path / "two" / blocks_file.FILE).read_text() == Path(blocks_file.__file__).read_text()
    config = hf.AutoConfig.from_pretrained(tmp_path / "two")
    assert config.get_text_config().hidden_size == 32
    fresh = hf.AutoModelForCausalLM.from_config(config)
    assert decoder_stack(fresh)[0].is_linear_block


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "falcon"])
def test_blocks_keep_step_in_every_way_of_generating(family):
    model = FAMILIES[family]()
    model.generation_config.eos_token_id = None
    cut_(model, None, [1], {0: MAP, 2: linear_block(MAP, rank=4)})
    ids = torch.cat([IDS, IDS + 40], 1)
    plain = model.generate(ids, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False, cache_implementation="static"), plain)
    beams = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    assert torch.equal(model.generate(ids, **beams), model.generate(ids, **beams, use_cache=False))


def test_blocks_in_the_place_of_convolutions_keep_step():
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": None}
    model = hf.Lfm2ForCausalLM(hf.Lfm2Config(**shape, **heads, layer_types=["conv", "full_attention"] * 2)).eval()
    cut_(model, None, [], {0: MAP, 3: MAP})
    plain = model.generate(IDS, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(model.generate(IDS, max_new_tokens=6, do_sample=False), plain)


def test_blocks_train():
    with torch.inference_mode(False):
        model = with_block().train()
        model.gradient_checkpointing_enable()
        ids = torch.arange(3, 13)[None]
        model(ids, labels=ids).loss.backward()
        block = decoder_stack(model)[0]
        assert block.weight.grad.norm() > 0 and block.bias.grad.norm() > 0


def test_the_dtype_of_the_source_comes_back(tmp_path):
    for name, made in (("plain", llama(tie_word_embeddings=True)), ("block", with_block(tie_word_embeddings=True))):
        made.to(torch.float16).save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
        model, words = load(str(tmp_path / name), device="cpu")
        assert model.dtype == torch.float32
        save_model(model, words, tmp_path / f"{name}-again")
        weights = load_file(tmp_path / f"{name}-again" / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
        assert weights.keys() == load_file(tmp_path / name / "model.safetensors").keys()
        config = json.loads((tmp_path / f"{name}-again" / "config.json").read_text())
        assert config["dtype"] == config.get("text_config", config)["dtype"] == "float16"
        assert load(str(tmp_path / f"{name}-again"), device="cpu", dtype="float16")[0].dtype == torch.float16


def test_generation_settings_are_kept_and_no_path_is_told(tmp_path):
    model = llama(num_hidden_layers=4)
    model.generation_config = hf.GenerationConfig(do_sample=True, temperature=0.3, eos_token_id=[5, 6])
    model.save_pretrained(tmp_path / "source")
    tokenizer().save_pretrained(tmp_path / "source")
    # As published for some models: settings that transformers itself would refuse to write anew.
    settings = tmp_path / "source" / "generation_config.json"
    settings.write_text(settings.read_text().replace('"do_sample": true', '"do_sample": false'))
    model, words = load(str(tmp_path / "source"), device="cpu")
    cut_(model, None, [1])
    save_model(model, words, tmp_path / "cut")
    kept = json.loads((tmp_path / "cut" / "generation_config.json").read_text())
    assert (kept["temperature"], kept["eos_token_id"]) == (0.3, [5, 6])
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["num_hidden_layers"] == 3
    for file in (tmp_path / "cut").glob("*.json"):
        assert str(tmp_path) not in file.read_text()


def test_large_models_are_sharded(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "SHARD", "20KB")
    model = with_block()
    save_model(model, tokenizer(), tmp_path / "cut")
    assert len(list((tmp_path / "cut").glob("model-*-of-*.safetensors"))) > 2
    assert torch.equal(load(str(tmp_path / "cut"), device="cpu")[0](IDS).logits, model(IDS).logits)


def test_quantised_weights_are_refused_and_a_mere_record_dropped(tmp_path):
    model = llama()
    model.is_quantized = True
    model.config.quantization_config = {"quant_method": "gguf"}
    save_model(model, None, tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    model.is_quantized = True
    weight = torch.zeros(32, 48, dtype=torch.int8)
    model.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ModelError, match=r"got model\.layers\.0\.mlp\.down_proj\.weight quantised: call model\.deq"):
        save_model(model, None, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_weights_that_cannot_be_written_are_one_line(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(ModelError, match=r"cannot write the weights to .*: I/O error: No space left"):
        save_model(llama(), None, tmp_path)
