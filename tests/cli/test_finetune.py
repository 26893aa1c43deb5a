import json
import re

import pytest
from typer.testing import CliRunner

import commands
import tiny
from rectilinear.cli.main import app
from rectilinear.models.load import load


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A file of labelled texts, one of other labelled texts, and one of pairs."""
    made = tmp_path_factory.mktemp("task")
    texts = tiny.documents(40, words=6)
    rows = [{"text": f"w{1 + n % 2} {text}", "label": n % 2} for n, text in enumerate(texts)]
    (made / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (made / "other.jsonl").write_text("\n".join(map(json.dumps, rows[:10])))
    pairs = [{"chosen": f"{text} w1", "rejected": f"{text} w2"} for text in texts]
    (made / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return made / "own.jsonl"


def run(*arguments, command="finetune", **options):
    done = CliRunner().invoke(app, [command, *map(str, arguments)], **options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


SHORT = ("--steps", 2, "--batch", 4, "--tokens", 400, "--scan-window", 20)


def test_a_model_is_fine_tuned_into_a_folder(folder, task, text, tmp_path):
    out = tmp_path / "out"
    done = run(folder, "--task", task, "--text", text, *SHORT, "--seeds", 2, "--keep-models", "--out", out)
    assert "full fine-tuning, 2 seeds" in " ".join(done.stdout.split()) and "2 steps of 4 examples" in done.stdout
    document = json.loads((out / "finetune.json").read_text())
    assert document["kind"] == "finetune" and [s["seed"] for s in document["seeds"]] == [0, 1]
    assert document["provenance"]["text"] == "docs.jsonl" and document["provenance"]["command"].startswith(
        "rectilinear"
    )
    assert json.loads(run(out, "--json", command="report").stdout) == document
    model, tokenizer = load(str(out / "seed-1"), outputs=2)
    assert model.config.pad_token_id == 0 and len(tokenizer) == tiny.VOCAB
    # What the delta command finds between the model and the kept one is what was found here.
    options = ("--text", text, "--tokens", 400, "--window", 20, "--json", "--dtype", "float32")
    delta = json.loads(run(folder, out / "seed-1", *options, command="delta").stdout)
    for here, there in zip(document["seeds"][1]["delta"]["layers"], delta["layers"], strict=True):
        assert here["increment"]["heldout"]["delta"] == pytest.approx(there["increment"]["heldout"]["delta"], abs=1e-6)


def test_every_option_reaches_the_recipe(folder, task, text):
    document = json.loads(
        run(
            *(folder, "--task", task, "--test", task.with_name("other.jsonl"), "--text", text, "--method", "lora"),
            *("--seeds", 1, "--examples", 12, "--test-examples", 6, "--lr", 0.001, "--warmup", 0.5, "--batch", 2),
            *("--accumulate", 3, "--window", 9, "--rank", 4, "--bf16", "--tokens", 300, "--scan-window", 15),
            *("--holdout", 0.4, "--device", "cpu", "--batch-tokens", 128, "--layers-path", "model.layers"),
            *("--trust-remote-code", "--json"),
        ).stdout
    )
    assert document["recipe"] == {
        "method": "lora",
        "steps": 2,
        "rate": 0.001,
        "warmup": 0.5,
        "batch": 2,
        "accumulate": 3,
        "window": 9,
        "rank": 4,
        "bf16": True,
        "tokens": 300,
        "scan_window": 15,
        "holdout": 0.4,
        "sink_multiple": 10.0,
        "batch_tokens": 128,
        "layers_path": "model.layers",
    }
    assert (document["task"]["train"], document["task"]["test"]) == (40, 6)
    assert document["seeds"][0]["delta"]["provenance"]["window"] == 15


def test_an_interrupted_run_goes_on_after_the_last_seed(folder, task, text, tmp_path, monkeypatch):
    from rectilinear.ops import finetune as op

    out = tmp_path / "out"
    arguments = (folder, "--task", task, "--text", text, *SHORT, "--out", out)
    made = op._Run._made

    def interrupted(self, seed, *rest):
        if seed == 1:
            raise KeyboardInterrupt
        return made(self, seed, *rest)

    monkeypatch.setattr(op._Run, "_made", interrupted)
    done = CliRunner().invoke(app, ["finetune", *map(str, arguments), "--seeds", "2"])
    assert done.exit_code == 130
    assert done.stderr == f"1 of 2 seeds are kept in {out}: go on with --resume\n"
    first = json.loads((out / "finetune.json").read_text())["seeds"]
    assert [seed["seed"] for seed in first] == [0] and not list(out.glob(".*"))
    monkeypatch.undo()
    run(*arguments, "--seeds", 2, "--resume")
    again = json.loads((out / "finetune.json").read_text())["seeds"]
    assert [seed["seed"] for seed in again] == [0, 1] and again[0] == first[0]
    assert (out / "report.html").is_file()
    assert json.loads(run(*arguments, "--seeds", 3, "--dry-run", "--json", "--resume").stdout)["seeds"] == 1


def test_pairs_make_a_reward_model(folder, task, text):
    pairs = task.with_name("pairs.jsonl")
    document = json.loads(run(folder, "--task", pairs, "--text", text, *SHORT, "--seeds", 1, "--json").stdout)
    assert document["task"]["labels"] is None and document["task"]["test"] == 8
    assert "pairs.jsonl has no part that judges" in document["warnings"][0]


def test_the_default_folder_is_named_after_the_task(folder, task, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (folder, "--task", task, "--text", text, *SHORT, "--seeds", 1)
    assert "finetune-own/report.html" in run(*arguments).stderr
    assert CliRunner().invoke(app, ["finetune", *map(str, arguments)]).exit_code != 0
    run(*arguments, "--force")


def test_dry_run_reads_no_weights_and_writes_nothing(folder, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rectilinear.models.load.load", None)
    said = run(folder, "--task", task, "--examples", 100, "--dry-run").stdout
    assert "13 steps of 8 examples" in said and re.search(r"seeds +3", said) and "16,384 tokens before" in said
    told = json.loads(run(folder, "--task", task.with_name("pairs.jsonl"), "--dry-run", "--json").stdout)
    assert told["judge on"] == 8 and told["budget"] == "375 steps of 8 examples" and told["out"] is None
    assert not list(tmp_path.iterdir())


def test_help_teaches_by_examples():
    assert "rectilinear finetune demo --task cb" in run("--help").stdout


def test_wrong_input_is_one_line_and_exit_code_2(folder, task, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    run(folder, "--task", task, "--text", text, *SHORT, "--seeds", 1, "--out", tmp_path / "done")
    capsys.readouterr()
    base = [folder, "--task", task, "--text", text]
    cases = [
        ([folder, "--task", "bolq"], "Did you mean 'boolq'"),
        ([folder, "--task", tmp_path / "gone.jsonl"], "got neither"),
        (["./nowhere", "--task", task, "--text", text], "no such model folder"),
        ([*base, "--text", tmp_path / "gone.txt"], "got neither"),
        ([*base, "--steps", "2", "--examples", "3"], "one budget"),
        ([*base, "--tokens", "all"], "--tokens as a number"),
        ([*base, "--holdout", "0"], "holdout between 0 and 1"),
        ([*base, "--force", "--resume"], "got both"),
        ([*base, "--out", tmp_path / "full"], "--force"),
        ([*base, "--out", tmp_path / "done"], "holds seeds: go on with --resume, replace it with --force"),
        ([*base, "--out", tmp_path / "full", "--force"], "not replaced"),
        ([*base, "--out", tmp_path / "full", "--resume"], "no finetune.json there"),
        ([*base, *SHORT, "--out", tmp_path / "done", "--resume", "--lr", "0.1"], "which had rate 2e-05: give them"),
    ]
    for arguments, expected in cases:
        said = commands.fails(["finetune", *arguments], capsys, monkeypatch)
        assert len(said.strip().splitlines()) == 1 and re.search(expected, said), (arguments, said)
