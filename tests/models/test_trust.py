"""No way in runs code that comes with a model or tokenizer, whoever says yes to a question on standard input."""

import io
import json
import shutil
import sys
from contextlib import suppress

import pytest

import tiny
from rectilinear.errors import ModelError
from rectilinear.models.gguf import config_of
from rectilinear.models.load import check_found, kept_tokenizer, load, load_tokenizer, skeleton
from rectilinear.ops.pretraining import corpus

OWN = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoModelForSequenceClassification": "evil.Model",
}


@pytest.fixture
def hostile(folder, tmp_path, monkeypatch):
    """A model's folder, and a GGUF file in another, with code of their own that leaves a mark where it runs."""
    monkeypatch.setenv("RECTILINEAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 99))
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "bare").mkdir()
    tiny.gguf(tmp_path / "bare" / "x.gguf")
    for place in (tmp_path / "model", tmp_path / "bare"):
        (place / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        own = {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}, "tokenizer_class": "Own"}
        (place / "tokenizer_config.json").write_text(json.dumps(own))
    return tmp_path


WAYS = {
    "load": lambda place: load(str(place / "model"), device="cpu"),
    "load with a head": lambda place: load(str(place / "model"), device="cpu", outputs=2),
    "load a GGUF": lambda place: load(str(place / "bare" / "x.gguf"), device="cpu"),
    "load_tokenizer": lambda place: load_tokenizer(str(place / "model")),
    "load_tokenizer of a GGUF": lambda place: load_tokenizer(str(place / "bare" / "x.gguf")),
    "kept_tokenizer": lambda place: kept_tokenizer(place / "model"),
    "check_found": lambda place: check_found(str(place / "model")),
    "skeleton": lambda place: skeleton(str(place / "model"), device="cpu"),
    "skeleton of a GGUF": lambda place: skeleton(str(place / "bare" / "x.gguf"), device="cpu"),
    "config_of": lambda place: config_of(place / "bare" / "x.gguf"),
    "a tokenizer for pretraining": lambda place: corpus.load_tokenizer(str(place / "model")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["llama", "evil"])  # a type that transformers knows, and one that it does not
def test_code_of_a_model_is_not_run_unasked(way, kind, hostile):
    path = hostile / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": kind, "auto_map": OWN}))
    with suppress(ModelError):
        WAYS[way](hostile)
    assert not (hostile / "ran").exists()


def test_code_of_a_model_is_run_when_asked(hostile):
    """The marks above would be seen."""
    path = hostile / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "evil", "auto_map": OWN}))
    with suppress(ModelError, AttributeError):
        load(str(hostile / "model"), device="cpu", trust_remote_code=True)
    assert (hostile / "ran").exists()
