import json
import re

import pytest
from typer.testing import CliRunner

import commands
import tiny
from rectilinear.cli.main import app


def write(path, count, shift=0):
    """Write examples of two classes that begin with another word each."""
    rows = []
    for number, text in enumerate(tiny.documents(count, words=8, seed=shift)):
        label = number % 2
        rows.append(json.dumps({"text": f"w{1 + label} w{1 + label} {text}", "label": label}))
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    made = tmp_path_factory.mktemp("task")
    write(made / "test.jsonl", 20, shift=1)
    return write(made / "train.jsonl", 60)


def run(*arguments, command="probe", **options):
    done = CliRunner().invoke(app, [command, *map(str, arguments)], **options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_models_are_probed_into_a_folder(folder, task, tmp_path):
    out = tmp_path / "out"
    done = run(folder, folder, "--task", task, "--test", task.with_name("test.jsonl"), "--folds", 2, "--out", out)
    assert "train.jsonl: 0 or 1" in done.stdout and "judged on 20" in done.stdout
    assert re.search(r"mean against .*\+0\.000", done.stdout)
    document = json.loads((out / "probe.json").read_text())
    assert document["kind"] == "probe" and [len(c["points"]) for c in document["curves"]] == [4, 4]
    assert document["provenance"]["command"].startswith("rectilinear")
    assert json.loads(run(out, "--json", command="report").stdout) == document


def test_every_option_reaches_the_probes(folder, task):
    document = json.loads(
        run(
            *(folder, "--task", task, "--examples", 30, "--test-examples", 8, "--pooling", "last", "--window", 9),
            *("--folds", 3, "--dtype", "bfloat16", "--device", "cpu", "--batch-tokens", 64),
            *("--layers-path", "model.layers", "--trust-remote-code", "--seed", 7, "--json"),
        ).stdout
    )
    facts = document["provenance"]
    assert (facts["pooling"], facts["window"], facts["folds"], facts["seed"]) == ("last", 9, 3, 7)
    assert (document["task"]["train"], document["task"]["test"]) == (30, 8)
    assert document["curves"][0]["facts"]["dtype"] == "bfloat16" and document["curves"][0]["truncated"] == 38
    assert document["warnings"]


def test_the_default_folder_is_named_after_the_task(folder, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (folder, "--task", task, "--folds", 2)
    assert "probe-train/report.html" in run(*arguments).stderr
    assert CliRunner().invoke(app, ["probe", *map(str, arguments)]).exit_code != 0
    run(*arguments, "--force")


def test_dry_run_reads_no_weights_and_writes_nothing(folder, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rectilinear.models.load.load", None)
    said = run(folder, "--task", task, "--dry-run").stdout
    assert "4 positions of width 32" in said and re.search(r"judge on +12", said)
    told = json.loads(run(folder, "--task", task, "--dry-run", "--json").stdout)
    assert told["learn from"] == 48 and told["majority"] == 0.5 and told["out"] is None
    assert not list(tmp_path.iterdir())


def test_help_teaches_by_examples():
    assert "rectilinear probe demo --task boolq" in run("--help").stdout


def test_wrong_input_is_one_line_and_exit_code_2(folder, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "a", "label": 1}\n{"text": "b"}')
    cases = [
        ([folder, "--task", "bolq"], "Did you mean 'boolq'"),
        ([folder, "--task", one], "field 'label' in line 2 of one.jsonl"),
        ([folder, "--task", tmp_path / "gone.jsonl"], "got neither"),
        ([folder, "./nowhere", "--task", task], "no such model folder"),
        ([folder, "--task", task, "--examples", "10", "--folds", "9"], "too few of train.jsonl"),
        ([folder, "--task", task, "--out", tmp_path / "full"], "--force"),
        ([folder, "--task", task, "--out", tmp_path / "full", "--force"], "not replaced"),
    ]
    for arguments, expected in cases:
        said = commands.fails(["probe", *arguments], capsys, monkeypatch)
        assert len(said.strip().splitlines()) == 1 and re.search(expected, said), (arguments, said)
