import json
import re

import pytest
from typer.testing import CliRunner

import commands
import tiny
from rectilinear.cli.main import app
from rectilinear.models.load import load
from rectilinear.ops.prune import prune
from rectilinear.results import Plan


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": t + " "}) for t in tiny.documents(40)))
    return path


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "dense"
    tiny.llama(num_hidden_layers=4, initializer_range=0.15).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def cuts(dense, tmp_path_factory):
    """Cut models by repair, layer 1 gone."""
    folder = tmp_path_factory.mktemp("cuts")
    texts = [t + " " for t in tiny.documents(40)]
    return {
        repair: prune(*load(str(dense)), texts=texts, layers=[1], repair=repair, tokens=None, window=32).save(
            folder / repair
        )
        for repair in ("refit", "linear")
    }


def run(*arguments, **options):
    done = CliRunner().invoke(app, ["heal", *map(str, arguments)], **options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def fails(arguments, capsys, monkeypatch):
    said = commands.fails(["heal", *arguments], capsys, monkeypatch)
    assert len(said.strip().splitlines()) == 1
    return said


SHORT = ("--window", 32, "--batch", 2, "--holdout", 3)


def test_a_cut_folder_is_healed_into_another(cuts, text, tmp_path):
    out = tmp_path / "healed"
    done = run(cuts["refit"], "--text", text, *SHORT, "--steps", 5, "--out", out)
    assert re.search(r"perplexity +\d", done.stdout) and "5 steps, 320 tokens" in done.stdout
    assert "training all" in done.stdout and "of the excess over the dense model" in done.stdout
    assert Plan.load(out) == Plan.load(cuts["refit"])
    document = json.loads((out / "heal.json").read_text())
    assert document["provenance"]["text"] == "docs.jsonl" and document["provenance"]["command"]
    assert load(str(out))[0].config.num_hidden_layers == 3


def test_every_option_reaches_the_recipe(cuts, dense, text, tmp_path):
    said = run(
        *(cuts["linear"], "--teacher", dense, "--text", text, "--loss", "kl", "--train", "maps", "--tokens", "1_00"),
        *("--lr", 0.002, "--schedule", "linear", "--warmup", 0.2, "--window", 16, "--protocol", "documents"),
        *("--batch", 3, "--accumulate", 2, "--top-k", 7, "--temperature", 2, "--rank", 5, "--holdout", 2),
        *("--read", 700, "--bf16", "--checkpoints", tmp_path / "kept", "--cache-teacher", tmp_path / "cache"),
        *("--seed", 9, "--layers-path", "model.layers", "--dtype", "float32", "--device", "cpu", "--json"),
    ).stdout
    document = json.loads(said)
    recipe = document["recipe"]
    assert recipe == {
        "loss": "kl",
        "train": "maps",
        "minutes": None,
        "steps": None,
        "tokens": 100,
        "rate": 0.002,
        "schedule": "linear",
        "warmup": 0.2,
        "window": 16,
        "protocol": "documents",
        "batch": 3,
        "accumulate": 2,
        "top_k": 7,
        "temperature": 2.0,
        "rank": 5,
        "holdout": 2,
        "read": 700,
        "bf16": True,
        "layers_path": "model.layers",
        "seed": 9,
        "budget": {"tokens": 100},
    }
    assert document["spent"]["tokens"] >= 100 and document["provenance"]["dtype"] == "float32"
    assert list((tmp_path / "kept").glob("checkpoint-*")) and list((tmp_path / "cache").glob("*.safetensors"))


def test_resume_goes_on_where_it_stopped(cuts, text, tmp_path):
    arguments = (cuts["refit"], "--text", text, *SHORT, "--steps", 4, "--checkpoints", tmp_path / "kept", "--json")
    first = json.loads(run(*arguments).stdout)
    (tmp_path / "kept/checkpoint-4").rename(tmp_path / "aside")
    again = json.loads(run(*arguments, "--resume").stdout)
    assert again["after"] == first["after"] and len(again["history"]) == 4


def test_mse_of_all_parameters_and_minutes(cuts, text):
    said = json.loads(
        run(
            *(cuts["linear"], "--text", text, *SHORT, "--loss", "mse", "--train", "all"),
            *("--minutes", 0.01, "--json"),
        ).stdout
    )
    assert said["recipe"]["budget"] == {"seconds": 0.6} and 0.5 < said["spent"]["seconds"] < 6


def test_the_default_folder_stands_beside(cuts, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (cuts["refit"], "--text", text, *SHORT, "--steps", 1)
    assert "Model: refit-healed" in run(*arguments).stderr
    assert (tmp_path / "refit-healed" / "heal.json").is_file()
    assert CliRunner().invoke(app, ["heal", *map(str, arguments)]).exit_code != 0
    run(*arguments, "--force")


def test_dry_run_prints_what_would_train_and_writes_nothing(cuts, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = run(cuts["refit"], "--text", text, "--train", "repaired", "--steps", 10, "--dry-run").stdout
    assert re.search(r"train +repaired: 1,536 of \d+,\d+ parameters", said)
    assert "10 steps, 5,120 tokens" in said and "0.0 MB for gradients" in said and "docs.jsonl" in said
    assert "the whole vocabulary" in said and "at most 13,312 tokens" in said
    assert re.search(r"train +all: (\d+,\d+) of \1 parameters", run(cuts["refit"], "--dry-run").stdout)
    assert "20 minutes" in run(cuts["refit"], "--dry-run", "--cache-teacher", "c").stdout
    assert "about 4 steps" in run(cuts["refit"], "--dry-run", "--train", "lora", "--tokens", 2048).stdout
    assert "after every layer" in run(cuts["refit"], "--dry-run", "--loss", "mse").stdout
    assert not list(tmp_path.iterdir())


def test_trust_remote_code_is_handed_on(cuts, text, monkeypatch):
    from rectilinear.models import load as loading

    asked = []
    found = loading._config
    monkeypatch.setattr(loading, "_config", lambda *args: asked.append(args[2]["trust_remote_code"]) or found(*args))
    run(cuts["refit"], "--text", text, *SHORT, "--steps", 1, "--json", "--trust-remote-code")
    assert asked == [True] * 3


def test_help_teaches_by_examples():
    assert "rectilinear heal demo-cut" in run("--help").stdout


def test_wrong_input_is_one_line_and_exit_code_2(cuts, folder, text, tmp_path, capsys, monkeypatch):
    cut = cuts["refit"]
    (tmp_path / "plan").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    capsys.readouterr()
    cases = [
        ([tmp_path / "plan"], "cannot read .*plan.json"),
        ([cut, "--teacher", folder], "expected the model that the plan was made for.*name that one with --teacher"),
        ([cut, "--dtype", "bfloat16"], "in the --dtype that it was cut in"),
        ([cut, "--teacher", "./nowhere"], "no such model folder"),
        ([cut, "--text", tmp_path / "gone.txt"], "got neither"),
        ([cut, "--train", "maps", "--text", text, *SHORT], "expected linear blocks"),
        ([cut, "--minutes", "1", "--steps", "2", "--text", text], "one budget"),
        ([cut, "--minutes", "0", "--text", text], "minutes above 0"),
        ([cut, "--tokens", "all"], "expected --tokens as a number"),
        ([cut, "--read", "all"], "expected --read as a number"),
        ([cut, "--text", text], "five windows of 512"),
        ([cut, "--resume", "--text", text], "--checkpoints"),
        ([cut, "--report-to", "nobody", "--text", text, *SHORT], "nobody is not supported"),
        ([cut, "--out", tmp_path / "full"], "--force"),
        ([cut, "--out", tmp_path / "full", "--force"], "not replaced"),
    ]
    for arguments, expected in cases:
        said = fails(arguments, capsys, monkeypatch)
        assert re.search(expected, said), (arguments, said)


def test_an_interruption_keeps_checkpoints_and_leaves_no_folder(cuts, text, tmp_path, monkeypatch):
    from rectilinear.ops import heal as op

    told = op._Run._told

    def interrupted(self, point, share):
        if point.step == 3:
            raise KeyboardInterrupt
        told(self, point, share)

    monkeypatch.setattr(op._Run, "_told", interrupted)
    out, kept = tmp_path / "out", tmp_path / "kept"
    arguments = (cuts["refit"], "--text", text, *SHORT, "--steps", 5, "--checkpoints", kept, "--out", out)
    done = CliRunner().invoke(app, ["heal", *map(str, arguments)])
    assert done.exit_code == 130 and not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert {path.name for path in kept.iterdir()} == {"checkpoint-1", "checkpoint-2"}
    monkeypatch.undo()
    run(*arguments, "--resume")
    assert json.loads((out / "heal.json").read_text())["spent"]["steps"] == 5
    assert run(*arguments, "--resume").stderr == f"{out} is done, by this command: nothing is left to do\n"
