import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import commands
from rectilinear.cli.main import app

SMALL = ("--vocab", 300, "--window", 16, "--batch", 2, "--checkpoints", 2)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two files that share a document, in another case."""
    folder = tmp_path_factory.mktemp("texts")
    words = "the cat sat on a mat and the dog ran to the tree where it was happy".split()
    stories = [" ".join(words[i % 7 :] + words[: i % 5] + [str(i)]) for i in range(60)]
    (folder / "one.txt").write_text("\n<|endoftext|>\n".join(stories[:40]))
    (folder / "two.txt").write_text("\n<|endoftext|>\n".join([stories[0].upper(), *stories[40:]]))
    return folder / "one.txt", folder / "two.txt"


def run(*arguments):
    done = CliRunner().invoke(app, ["pretrain", *map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def fails(arguments, capsys, monkeypatch):
    said = commands.fails(["pretrain", *arguments], capsys, monkeypatch)
    assert len(said.strip().splitlines()) == 1
    return said


def test_a_model_is_trained_from_several_texts_then_a_sibling_from_its_recipe_and_both_are_scanned(texts, tmp_path):
    out = tmp_path / "plain"
    done = run(out, "--text", texts[0], "--text", texts[1], *SMALL, "--tokens", "128", "--seed", 3)
    assert "Pretrained tiny" in done.stdout and "no penalty" in done.stdout and "checkpoint-4" in done.stdout
    document = json.loads((out / "pretrain.json").read_text())
    assert document["corpus"]["documents"] + document["corpus"]["heldout"] == 60
    assert document["corpus"]["dropped"] == 1
    assert document["provenance"]["command"].startswith("rectilinear")
    options = ("--penalty", "cosine", "--weight", 2, "--layers", "1,3", "--penalty-schedule", "decay", "--json")
    sibling = json.loads(run(tmp_path / "cosine", "--recipe", out / "recipe.yaml", *options).stdout)
    changed = {name for name, value in sibling["recipe"].items() if value != document["recipe"][name]}
    assert changed == {"penalty", "weight", "layers", "penalty_schedule"}
    assert sibling["history"][0]["penalty"] > 0
    scan = ["scan", str(out / "checkpoint-2"), "--text", str(texts[1]), "--window", "16", "--json", "--tokens", "400"]
    scanned = CliRunner().invoke(app, scan)
    assert scanned.exit_code == 0, scanned.output
    assert len(json.loads(scanned.stdout)["layers"]) == 8


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(texts, tmp_path):
    options = ("--penalty", "mse", "--weight", 2, "--lr", 1e-3, "--accumulate", 3, "--warmup", 0.1, "--tokens", "960")
    said = run(tmp_path / "run", "--text", texts[0], *SMALL, *options, "--dry-run").stdout
    for line in (
        "model      tiny: 8 layers of width 96",
        "penalty    mse x 2",
        "budget     10 steps, 960 tokens",
        "step       2 x 3 windows of 16, 96 tokens",
        "rate       0.001, warm-up 10%, cosine to 0",
    ):
        assert line in said
    assert "budget     30 minutes" in run(tmp_path / "run", "--text", texts[0], "--minutes", 30, "--dry-run").stdout
    assert not list(tmp_path.iterdir())


def test_every_option_reaches_the_recipe(texts, tmp_path):
    asked = {
        "--penalty": ("penalty", "increment"),
        "--target": ("target", 0.3),
        "--read": ("read", 0.01),
        "--holdout": ("holdout", 0.2),
        "--tokenizer": ("tokenizer", "gpt2"),
        "--size": ("size", "mini"),
        "--window": ("window", 64),
        "--batch": ("batch", 20),
        "--accumulate": ("accumulate", 2),
        "--lr": ("rate", 0.01),
        "--warmup": ("warmup", 0.5),
        "--profile": ("profile", 7),
        "--checkpoints": ("checkpoints", 1),
        "--seed": ("seed", 5),
        "--data-seed": ("data_seed", 6),
    }
    out = tmp_path / "tokenizer"
    run(out, "--text", texts[0], *SMALL, "--tokens", "32", "--bf16")
    assert json.loads((out / "pretrain.json").read_text())["recipe"]["bf16"] is True
    asked["--tokenizer"] = ("tokenizer", str(out))
    given = [str(part) for option, (_, value) in asked.items() for part in (option, value)]
    many = tmp_path / "many.txt"
    many.write_text(
        "\n<|endoftext|>\n".join(f"{i} {line}" for i in range(10) for line in texts[0].open() if "<" not in line)
    )
    said = json.loads(run(tmp_path / "run", "--text", many, "--tokens", "64", *given, "--json", "--no-bf16").stdout)
    assert {name: said["recipe"][name] for name, _ in asked.values()} == dict(asked.values())
    assert (said["recipe"]["bf16"], said["recipe"]["vocab"], said["vocab"]) == (False, None, 300)
    assert said["corpus"]["heldout"] >= 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--text", "none.txt"), "none.txt"),
        ((), "expected text to train on, got none"),
        (("--text", "demo", "--weight", -0.5), "expected a penalty weight of 0 or above, got -0.5"),
        (("--text", "demo", "--layers", "a"), "expected --layers as numbers like 3,4,5, got 'a'"),
        (("--text", "demo", "--tokens", "all"), "expected --tokens as a number"),
        (("--text", "demo", "--recipe", "none.yaml"), "cannot read the recipe none.yaml"),
        (("--text", "demo", "--report-to", "nothing", "--tokens", "64", *SMALL), "cannot train with these options"),
        (("--text", "demo", "--device", "cuda:7", "--tokens", "64", *SMALL), "expected a device of this machine"),
        (("--text", "demo", "--device", "balanced"), "expected one device to pretrain on"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(options, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert said in fails(["run", *options], capsys, monkeypatch)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_only_replaced_by_force_and_only_a_run(texts, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    asked = [out, "--text", texts[0], *SMALL, "--tokens", "64"]
    assert "exists; add --force" in fails(asked, capsys, monkeypatch)
    assert "holds no recipe.yaml" in fails([*asked, "--force"], capsys, monkeypatch)
    (out / "mine.txt").rename(out / "recipe.yaml")
    run(*asked, "--force")
    assert (out / "pretrain.json").is_file() and "tokens: 64" in (out / "recipe.yaml").read_text()


def test_a_run_that_is_replaced_is_there_until_the_new_one_can_be_resumed(texts, tmp_path, capsys, monkeypatch):
    from rectilinear.ops.pretraining import loop

    out = tmp_path / "run"
    asked = [out, "--text", texts[0], *SMALL, "--tokens", "640"]
    run(*asked)
    whole = (out / "pretrain.json").read_text()
    train = loop.SavingTrainer.train

    def failing(trainer, **options):
        assert not (out / "pretrain.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.SavingTrainer, "train", failing)
    done = CliRunner().invoke(app, ["pretrain", *map(str, asked), "--force"])
    assert done.exit_code and (out / "pretrain.json").read_text() == whole
    out.rename(tmp_path / ".run.before")  # as a run that is killed at its start leaves it
    assert "exists; add --force" in fails(asked, capsys, monkeypatch)
    assert (out / "pretrain.json").read_text() == whole
    monkeypatch.setattr(loop.SavingTrainer, "train", train)
    run(*asked, "--force", "--seed", "3")
    assert (out / "pretrain.json").read_text() != whole
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_killed_run_is_resumed_by_the_same_command(texts, tmp_path):
    asked = ["pretrain", tmp_path / "run", "--text", texts[0], *SMALL, "--tokens", "3200", "--profile", "1000"]
    command = [sys.executable, "-m", "rectilinear", *map(str, asked)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 300
        while not list((tmp_path / "run").glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    assert not (tmp_path / "run" / "pretrain.json").exists()
    run(*asked[1:], "--resume")
    again = run(*asked[1:], "--resume", "--json")
    assert "is done, by this command" in again.stderr
    assert again.stdout == (tmp_path / "run" / "pretrain.json").read_text()
    whole = json.loads(run(tmp_path / "whole", *asked[2:], "--json").stdout)
    resumed = json.loads((tmp_path / "run" / "pretrain.json").read_text())
    assert [p["loss"] for p in resumed["history"]] == [p["loss"] for p in whole["history"]]
