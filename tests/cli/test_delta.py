import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import commands
import tiny
from rectilinear.cli.main import app


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two tiny models of the same tokenizer, one deeper, and one with other words."""
    made = tmp_path_factory.mktemp("models")
    for name, options in (("a", {}), ("b", {"initializer_range": 0.1}), ("deep", {"num_hidden_layers": 4})):
        tiny.llama(**options).save_pretrained(made / name)
        tiny.tokenizer().save_pretrained(made / name)
    tiny.llama().save_pretrained(made / "other")
    words = tiny.tokenizer()
    words.add_tokens(["w1 w2", *(f"w{i} w{j}" for i in range(1, 60) for j in range(1, 60))][:40])
    words.save_pretrained(made / "other")
    return made


SHORT = ("--tokens", 800, "--window", 20)


def run(*arguments, command="delta", **options):
    done = CliRunner().invoke(app, [command, *map(str, arguments)], **options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def test_two_models_are_compared_into_a_folder(models, text, tmp_path):
    out = tmp_path / "out"
    done = run(models / "a", models / "b", "--text", text, *SHORT, "--out", out)
    assert re.search(r"held-out \d\.\d+ → \d\.\d+: [+-]\d\.\d+ \(.* … .*\), (no )?more than noise", done.stdout)
    document = json.loads((out / "delta.json").read_text())
    assert document["kind"] == "delta" and len(document["layers"]) == 3
    assert document["before"]["model"] == str(models / "a") and document["after"]["model"] == str(models / "b")
    assert document["provenance"]["text"] == "docs.jsonl" and document["provenance"]["command"].startswith(
        "rectilinear"
    )
    assert document["provenance"]["tokens"] == 800 and document["provenance"]["window"] == 20


def test_finished_scans_give_the_same_delta(models, text, tmp_path):
    for name in ("a", "b"):
        run(models / name, "--text", text, *SHORT, "--out", tmp_path / name, command="scan")
    scanned = json.loads(run(tmp_path / "a", tmp_path / "b", "--json", "--seed", 5).stdout)
    at_once = json.loads(run(models / "a", models / "b", "--text", text, *SHORT, "--json", "--seed", 5).stdout)
    assert scanned["layers"] == at_once["layers"] and scanned["mean"] == at_once["mean"]
    assert scanned["provenance"]["seed"] == 5
    other = json.loads(run(tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert other["layers"] != scanned["layers"]


def test_every_option_reaches_the_scans(models, text):
    document = json.loads(
        run(
            *(models / "a", models / "b", "--text", text, "--tokens", "900", "--window", 15, "--holdout", 0.4),
            *("--dtype", "bfloat16", "--device", "cpu", "--batch-tokens", 64, "--sink-multiple", 7),
            *("--layers-path", "model.layers", "--trust-remote-code", "--json"),
        ).stdout
    )
    facts = document["provenance"]
    assert (facts["window"], facts["holdout"], facts["sink_multiple"]) == (15, 0.4, 7)
    assert facts["tokens"] == 900 and abs(facts["tokens_heldout"] - 360) <= 40
    assert document["after"]["dtype"] == "bfloat16" and document["after"]["device"] == "cpu"


def test_the_default_folder_is_named_after_the_second(models, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (models / "a", models / "b", "--text", text, *SHORT)
    assert "delta-b/report.html" in run(*arguments).stderr
    assert CliRunner().invoke(app, ["delta", *map(str, arguments)]).exit_code != 0
    run(*arguments, "--force")


def test_dry_run_reads_no_weights_and_writes_nothing(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rectilinear.models.load.load", None)
    said = run(models / "a", models / "b", "--dry-run").stdout
    assert re.search(r"tokens +16384 *\n", said) and re.search(r"out +delta-b", said)
    told = json.loads(run(models / "a", models / "b", "--tokens", "all", "--dry-run", "--json").stdout)
    assert told["tokens"] == "all" and told["out"] is None
    assert not list(tmp_path.iterdir())


def test_a_saved_delta_is_drawn_again_without_torch(models, text, tmp_path):
    out = tmp_path / "out"
    run(models / "a", models / "b", "--text", text, *SHORT, "--out", out)
    (out / "report.html").unlink()
    code = (
        "import sys; from rectilinear.cli.main import app\n"
        f"app(['report', {str(out)!r}, '--json'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "delta.json").read_text())
    assert (out / "report.html").is_file()


def test_help_teaches_by_examples():
    assert "rectilinear delta demo my-finetuned" in run("--help").stdout


def test_wrong_input_is_one_line_and_exit_code_2(models, text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(models / "a", "--text", text, *SHORT, "--out", tmp_path / "scan", command="scan")
    run(models / "deep", "--text", text, *SHORT, "--out", tmp_path / "deep", command="scan")
    run(models / "a", "--text", text, "--tokens", 700, "--window", 20, "--out", tmp_path / "less", command="scan")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    capsys.readouterr()
    both = [models / "a", models / "b", "--text", text, *SHORT]
    cases = [
        ([models / "a", tmp_path / "scan"], "two models or two folders of scans"),
        ([tmp_path / "scan", tmp_path / "less"], "the same windows of tokens"),
        ([tmp_path / "scan", tmp_path / "deep"], "same depth"),
        ([tmp_path / "scan", tmp_path / "scan", "--text", text, "--window", "9"], "expected no --text, --window"),
        ([models / "a", models / "deep", "--text", text], "same depth, got 3 and 4 layers"),
        ([models / "a", "./nowhere"], "no such model folder"),
        ([models / "a", models / "other", "--text", text, *SHORT], "tokenizers that differ"),
        ([models / "a", models / "b", "--text", tmp_path / "gone.txt"], "got neither"),
        ([*both, "--holdout", "2"], "holdout between 0 and 1"),
        ([*both, "--holdout", "0"], "held nothing out"),
        ([*both, "--tokens", "none"], "--tokens as a number"),
        ([*both, "--out", tmp_path / "full"], "--force"),
        ([*both, "--out", tmp_path / "full", "--force"], "not replaced"),
    ]
    for arguments, expected in cases:
        said = commands.fails(["delta", *arguments], capsys, monkeypatch)
        assert len(said.strip().splitlines()) == 1 and re.search(expected, said), (arguments, said)
