import gzip
import json
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import tiny
from rectilinear.cli.main import app
from rectilinear.data.text import read_text
from rectilinear.errors import ModelError
from rectilinear.models import siblings
from rectilinear.models.load import load, model_id, skeleton
from rectilinear.ops.evaluate import perplexity
from training import save_run


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """The package's folder of small models, as it is once they are trained: bfloat16 in a float32 configuration."""
    root = tmp_path / "tiny"
    for seed, name in enumerate(siblings.FOLDERS.values()):
        save_run(root / name, (4, 20, 100), tokenizer="none", rope_theta=10_000.0 + seed)
        for file in root.rglob("model.safetensors"):
            halves = {key: value.bfloat16() for key, value in load_file(file).items()}
            save_file(halves, file, metadata={"format": "pt"})
    tiny.tokenizer().save_pretrained(root)
    monkeypatch.setattr(siblings, "ASSETS", root)
    return root


@pytest.fixture
def stories(assets):
    with gzip.open(assets / "stories.txt.gz", "wt") as file:
        file.write("\n<|endoftext|>\n".join(tiny.documents(40)))


def test_the_last_checkpoint_is_the_model(assets):
    model, tokenizer = load("demo:tiny", device="cpu")
    last = load_file(assets / "plain" / "checkpoint-100" / "model.safetensors")
    assert torch.equal(model.model.norm.weight, last["model.norm.weight"].float())
    assert tokenizer("w3 w5")["input_ids"] == [3, 5]
    assert model_id(model) == "demo:tiny"
    assert load("demo:tiny-cosine", device="cpu")[0].config.rope_parameters["rope_theta"] == 10_001.0


def test_a_checkpoint_has_a_name_of_its_own(assets):
    early = load("demo:tiny/checkpoint-4", device="cpu")[0]
    assert torch.equal(early.model.norm.weight, torch.ones(32))
    assert not torch.equal(load("demo:tiny", device="cpu")[0].model.norm.weight, torch.ones(32))


def test_halves_are_computed_with_in_the_precision_of_the_configuration(assets):
    assert (
        load_file(assets / "plain" / "checkpoint-4" / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    )
    assert load("demo:tiny", device="cpu")[0].dtype == skeleton("demo:tiny", device="cpu").dtype == torch.float32


def test_the_stories_are_the_default_text(assets, stories, monkeypatch, tmp_path):
    def text(*arguments):
        done = CliRunner().invoke(app, ["scan", *arguments, "--window", "32", "--tokens", "1600", "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)["provenance"]["text"]

    assert text("demo:tiny") == "stories.txt.gz"
    assert text("demo:tiny", "--text", "demo") == "demo"
    (assets / "stories.txt.gz").unlink()
    assert text("demo:tiny-cosine") == "demo"


def test_a_trace_finds_the_checkpoints(assets, stories):
    options = ["--window", "32", "--tokens", "1600", "--json"]
    done = CliRunner().invoke(app, ["trace", "demo:tiny-cosine", *options])
    document = json.loads(done.stdout)
    assert [(one["step"], one["name"]) for one in document["checkpoints"]] == [
        (step, f"checkpoint-{step}") for step in (4, 20, 100)
    ]
    assert document["provenance"]["model"] == "demo:tiny-cosine"
    assert document["provenance"]["text"] == "stories.txt.gz"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("demo:tony", r"expected one of demo:tiny, demo:tiny-cosine, got 'demo:tony'\. Did you mean 'demo:tiny'"),
        ("demo:tiny/checkpoint-5", r"no checkpoint 'demo:tiny/checkpoint-5'.* Did you mean 'demo:tiny/checkpoint-4'"),
    ],
)
def test_unknown_names(assets, name, said):
    with pytest.raises(ModelError, match=said):
        load(name)


def test_weights_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(siblings, "ASSETS", tmp_path)
    with pytest.raises(ModelError, match=r"the weights of demo:tiny are not in this installation"):
        load("demo:tiny")


def test_those_of_the_package_are_small_and_have_learnt_from_stories():
    files = [path for path in siblings.ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 16_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".gz", ".md"}
    texts = list(islice(read_text(siblings.default_text("demo:tiny")).documents(), 20))
    found = {}
    for name in siblings.FOLDERS:
        assert len(siblings.sibling_checkpoints(name)) == 5
        for asked in (name, f"{name}/checkpoint-46"):
            model, tokenizer = load(asked, device="cpu")
            found[asked] = perplexity(model, tokenizer, texts, window=512)  # of joined stories, unlike in training
    assert found["demo:tiny"] < 25 and found["demo:tiny-cosine"] < found["demo:tiny"]
    assert all(value > 200 for name, value in found.items() if name.endswith("46"))
