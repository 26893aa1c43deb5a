"""On a GPU every command does what it does on a CPU: `make gpu`; RECTILINEAR_GPU=cpu shows that the tests are right.

One GPU of any kind will do; the models are tiny.
"""

import copy
import json
import math
import os

import pytest
import torch
from typer.testing import CliRunner

import rectilinear
import tiny
from rectilinear.cli.main import app
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.cut.registry import REPAIRS, SELECTORS

GPU = os.environ.get("RECTILINEAR_GPU", "")
HERE = GPU == "cpu" or (bool(GPU) and torch.cuda.is_available())
pytestmark = pytest.mark.skipif(not HERE, reason="needs a GPU: make gpu where there is one")
BUDGET = ("--window", "32", "--tokens", "2000")
# Of no device's doing: where and when it ran, and how fast.
ASIDE = {
    "seconds",
    "time",
    "command",
    "device",
    "tokens_per_second",
    "speed",
    "threads",
    "attention",
    "perplexity_seconds",
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": words}) for words in tiny.documents(80)))
    return path


@pytest.fixture(scope="module")
def massive():
    """A tiny model with sink tokens."""
    return tiny.massive(initializer_range=0.15, num_hidden_layers=4)


@pytest.fixture(scope="module")
def saved(massive, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "massive"
    massive.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def told(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def same(ours, theirs, within, path=""):
    """Compare two documents, numbers to within a share of their size."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), path
        for key in ours.keys() - ASIDE:
            same(ours[key], theirs[key], within, f"{path}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), path
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            same(*pair, within, f"{path}[{index}]")
    elif isinstance(ours, float) and isinstance(theirs, float):
        assert math.isclose(ours, theirs, rel_tol=within, abs_tol=within), (path, ours, theirs)
    else:
        assert ours == theirs, path


def without_names(layers):
    """Return layers without the names of single tokens: close errors of two may change places, and a name with them."""
    for layer in layers:
        for name in ("triggers", "error_tokens", "error_classes", "tails"):
            layer.pop(name, None)
    return layers


@pytest.mark.parametrize("options", [{}, {"submodules": True}, {"pairs": True}, {"holdout": 0}, {"layers": "1-2"}])
def test_a_scan_has_the_same_figures(massive, tmp_path, options):
    found = []
    for number, device in enumerate(("cpu", GPU)):
        model = copy.deepcopy(massive).to(device)
        kept = None if "layers" in options else tmp_path / str(number)
        result = rectilinear.scan(
            model, tiny.tokenizer(), tiny.documents(80), window=32, batch_tokens=256, keep_moments=kept, **options
        )
        assert any(layer.sinks.count for layer in result.layers)
        found.append([json.loads(json.dumps(layer, default=vars)) for layer in result.layers])
    same(without_names(found[1]), without_names(found[0]), 1e-4)


def test_a_model_in_bfloat16_has_nearly_the_same_scores(massive):
    found = []
    for device in ("cpu", GPU):
        model = copy.deepcopy(massive).to(device, torch.bfloat16)
        result = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(80), window=32)
        found.append([(layer.score.ordinary, layer.increment.ordinary) for layer in result.layers])
    torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(found[0]), atol=0.03, rtol=0)


def test_an_activation_that_is_no_number_names_its_document():
    model, texts = tiny.not_finite()
    with pytest.raises(rectilinear.NonFiniteError, match=r"the embedding gave .* document 3 at token 1"):
        rectilinear.scan(model.to(GPU), tiny.tokenizer(), texts, window=16)


@pytest.mark.parametrize(
    "command",
    [
        ("scan", "{model}", "--text", "{text}", *BUDGET, "--json"),
        ("eval", "{model}", "--text", "{text}", "--window", "32", "--json"),
        ("delta", "{model}", "{model}", "--text", "{text}", *BUDGET, "--json"),
        ("tokens", "{model}", "--prompt", "w1 w2 w7 w9", "--text", "{text}", *BUDGET, "--json"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_says_the_same(command, saved, text):
    filled = [part.format(model=saved, text=text) for part in command]
    documents = [json.loads(told(*filled, "--device", device)) for device in ("cpu", GPU)]
    for document in documents:
        without_names(document.get("layers", []))
    same(documents[1], documents[0], 1e-3)


def test_shards_are_the_whole(saved, text, tmp_path):
    options = (saved, "--text", text, *BUDGET, "--device", GPU)
    whole = json.loads(told("scan", *options, "--json"))
    for number in (1, 2):
        told("scan", *options, "--shard", f"{number}/2", "--out", tmp_path / f"fit-{number}")
    told("merge", tmp_path / "fit-1", tmp_path / "fit-2", "--out", tmp_path / "fit")
    for number in (1, 2):
        maps = ("--maps", tmp_path / "fit", "--shard", f"{number}/2")
        told("scan", *options, *maps, "--out", tmp_path / f"heldout-{number}")
    told("merge", *tmp_path.glob("*-?"), "--out", tmp_path / "merged")
    merged = json.loads((tmp_path / "merged" / "result.json").read_text())
    for one, other in zip(merged["layers"], whole["layers"], strict=True):
        same(one["score"], other["score"], 1e-5)
        same(one["increment"], other["increment"], 1e-4)


@pytest.mark.parametrize("repair", [name for name in REPAIRS if name != "none"])
def test_a_repair_gives_the_same_model(massive, repair):
    ids = torch.arange(1, 33)[None]
    found = []
    for device in ("cpu", GPU):
        model = copy.deepcopy(massive).to(device)
        options = {"texts": tiny.documents(80), "window": 32, "layers": [2], "repair": repair}
        cut = rectilinear.prune(model, tiny.tokenizer(), **options)
        assert {str(weight.device.type) for weight in cut.model.parameters()} == {torch.device(device).type}
        with torch.inference_mode():
            found.append(cut.model(ids.to(device)).logits.cpu())
    torch.testing.assert_close(found[1], found[0], atol=0.05, rtol=0.05)


@pytest.mark.parametrize("select", SELECTORS)
def test_every_selector_chooses(massive, select):
    model = copy.deepcopy(massive).to(GPU)
    cut = rectilinear.prune(model, tiny.tokenizer(), texts=tiny.documents(80), window=32, remove=1, select=select)
    assert len(decoder_stack(cut.model)) == 3


def test_a_cut_model_is_saved_healed_and_judged(saved, text, tmp_path):
    cut, healed, run = tmp_path / "cut", tmp_path / "healed", tmp_path / "run"
    told("prune", saved, "--remove", 1, "--text", text, *BUDGET, "--device", GPU, "--out", cut)
    for kind in ("repaired", "lora", "all"):
        told("heal", cut, "--teacher", saved, "--text", text, "--steps", 2, "--window", 32, "--train", kind, "--device",
             GPU, "--out", healed, "--force")  # fmt: skip
    told("eval", cut, healed, "--reference", saved, "--text", text, "--window", 32, "--speed", "--device", GPU)
    told("pretrain", run, "--text", text, "--size", "tiny", "--tokens", 4096, "--window", 32, "--penalty", "cosine",
         "--device", GPU)  # fmt: skip
    told("trace", run, "--text", text, "--window", 32, "--tokens", 1024, "--device", GPU, "--out", tmp_path / "trace")
