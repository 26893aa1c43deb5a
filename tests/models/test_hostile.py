"""Model folders by strangers: one line, whatever stands in their files."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from families import FAMILIES

import tiny
from commands import fails
from rectilinear.core.linear import AffineMap
from rectilinear.errors import ModelError
from rectilinear.models.load import check_found, load, load_tokenizer, skeleton
from rectilinear.models.save import save_model
from rectilinear.models.surgery import cut_

DEEP = '{"a":' * 100_000
EVIL = "\x1b]0;PWNED\x07\x1b[31mred"


@pytest.fixture
def model(folder, tmp_path):
    """A copy of the tiny model that a test may damage."""
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def refused(model, read=load):
    """Return the one line that a model ends with, at once."""
    started = time.perf_counter()
    with pytest.raises(ModelError) as error:
        read(str(model), **({} if read in (load_tokenizer, check_found) else {"device": "cpu"}))
    assert time.perf_counter() - started < 5
    said = str(error.value)
    assert said.isprintable() and said.strip()
    return said


def put(folder, **values):
    """Set values of a folder's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


EARLY = [  # told by the configuration alone
    {"model_type": []},
    {"architectures": 5},
    {"architectures": [1]},
    {"dtype": "os.system"},
    {"dtype": "save"},
    {"dtype": "int8"},
    {"dtype": EVIL},
    {"hidden_size": "x"},
    {"rope_parameters": [1]},
    {"quantization_config": []},
    {"auto_map": 5},
    {"sub_configs": EVIL},
    {"text_config": {}},
    {"text_config": 5},
    {"attn_implementation": "evil/kernel"},
    {"_attn_implementation": "evil/kernel"},
    {"num_hidden_layers": 10**30},
    {"num_hidden_layers": 31},
    {"num_hidden_layers": 0},
    {"num_hidden_layers": -1},
    {"num_hidden_layers": None},
    {"text_config": {"model_type": "qwen2", "num_hidden_layers": 10**30}},
]
LATE = [  # told as the model is built, or its weights are read
    {"hidden_act": "nosuch"},
    {"rope_parameters": {"rope_type": "bad", "rope_theta": 1.0}},
    {"attn_implementation": "flash_attention_2"},
    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"vocab_size": 10**30},
    {"hidden_size": 10**9},
    {"num_hidden_layers": 4},
]


@pytest.mark.parametrize("values", [*EARLY, *LATE], ids=str)
def test_a_configuration_that_is_wrong_is_one_line(values, model, capfd):
    put(model, **values)
    for read in (load, skeleton, check_found) if values in EARLY else (load,):
        refused(model, read)
    assert capfd.readouterr() == ("", "")


def test_layers_are_not_built_from_a_number_alone(model):
    put(model, num_hidden_layers=10**30)
    for read in (load, skeleton, check_found, load_tokenizer):
        assert "expected a number of layers that fits 30 weights" in refused(model, read)
    (model / "model.safetensors").write_bytes(b"")
    assert "expected a number of layers that fits at most 10,000" in refused(model, skeleton)


@pytest.mark.parametrize("text", ["[]", DEEP, "5", '"x"'], ids=["list", "deep", "number", "text"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "adapter_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
    ],
)
def test_documents_that_are_wrong_are_one_line(name, text, model):
    (model / name).write_text(text)
    if name == "adapter_config.json":
        shutil.copy(model / "model.safetensors", model / "adapter_model.safetensors")
    refused(model)


@pytest.mark.parametrize(
    "place", ["../outside.safetensors", "/etc/passwd", "C:\\x", "a\\..\\..\\b", "", ".", "\x1b[2J", 1, []]
)
def test_an_index_names_files_in_its_folder_only(place, model):
    weights = model / "model.safetensors"
    shutil.copy(weights, model.parent / "outside.safetensors")
    weights.rename(model / "other.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": place}}))
    assert "names of files in the folder itself" in refused(model)


def test_an_index_may_name_files_below_its_folder(model):
    (model / "parts").mkdir()
    (model / "model.safetensors").rename(model / "parts" / "a.safetensors")
    (model / "other.safetensors").touch()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "parts/b.safetensors"}}))
    assert "got 0: no parts/b.safetensors" in refused(model)


@pytest.fixture
def blocks(tmp_path):
    """A folder with a linear block."""
    cut = FAMILIES["llama"]()
    cut_(cut, None, [2], {1: AffineMap(torch.ones(32, 32), torch.ones(32))})
    save_model(cut, tiny.tokenizer(), tmp_path / "blocks")
    return tmp_path / "blocks"


WHOLE = {"stack": "model.layers", "outputs": 0, "ranks": {"1": None}}


@pytest.mark.parametrize(
    "values",
    [
        *({"architectures": value} for value in (["pipeline"], ["os"], ["LlamaConfig"], ["no"], [], [1], "x", 5)),
        *({"linear_blocks": value} for value in (None, [], {}, "x")),
        *({"linear_blocks": {**WHOLE, "stack": value}} for value in ("model", "no", "", 5, "model.__class__")),
        *({"linear_blocks": {**WHOLE, "outputs": value}} for value in (-1, 10**9, "x", None)),
        *({"linear_blocks": {**WHOLE, "ranks": value}} for value in ({"9": None}, {"-1": 1}, {"x": 1}, [], {"1": "x"})),
        *({"linear_blocks": {**WHOLE, "ranks": {"1": value}}} for value in (-1, 10**12, 33, 1.5)),
        {"model_type": 5},
        {"model_type": "no"},
    ],
    ids=str,
)
def test_own_checkpoints_are_looked_through(values, blocks):
    path = blocks / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "text_config": {**whole["text_config"], **values}}))
    for read in (load, skeleton):
        refused(blocks, read)


@pytest.mark.parametrize("value", [None, [], "x", {}])
def test_own_checkpoints_without_a_text_model(value, blocks):
    put(blocks, text_config=value)
    for read in (load, skeleton):
        refused(blocks, read)


def test_what_a_folder_says_cannot_drive_the_terminal(model, capsys, monkeypatch):
    put(model, dtype=EVIL)
    said = fails(["scan", model, "--out", Path(model).parent / "out"], capsys, monkeypatch)
    assert "\x1b" not in said and "\x07" not in said and "PWNED" in said
