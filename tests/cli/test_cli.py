import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from typer.testing import CliRunner

import tiny
from commands import fails, loaded_by
from rectilinear.cli.main import COMMANDS, app

NAMES = [name for panel in COMMANDS.values() for name in panel]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory, folder, text):
    out = tmp_path_factory.mktemp("out") / "scan"
    done = CliRunner().invoke(app, ["scan", str(folder), "--text", str(text), "--window", "32", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "mean" in done.output
    return out


def test_scan_writes_the_whole_folder(scanned):
    names = {p.relative_to(scanned).as_posix() for p in scanned.rglob("*") if p.is_file()}
    plots = {f"plots/{n}.{e}" for n in ("profile", "norms", "tails", "spectra", "carriers") for e in ("png", "svg")}
    assert names == {"result.json", "arrays.safetensors", "layers.csv", "report.html", "SHA256SUMS", *plots}
    document = json.loads((scanned / "result.json").read_text())
    layer = document["layers"][1]
    assert layer["layer"] == 1
    assert {"paper", "heldout", "heldout_low", "heldout_high", "ordinary"} <= set(layer["score"])
    assert {"norm_ratio", "cosine", "sinks", "increment"} <= set(layer)
    assert document["provenance"]["command"].startswith("rectilinear")
    assert not list(scanned.parent.glob(".*"))


def test_json_is_the_same_document(folder, text):
    done = CliRunner().invoke(app, ["scan", str(folder), "--text", str(text), "--window", "32", "--json"])
    assert json.loads(done.stdout)["schema"] == 1


def test_text_from_standard_input(folder):
    arguments = ["scan", str(folder), "--text", "-", "--window", "16", "--json"]
    done = CliRunner().invoke(app, arguments, input="\n<|endoftext|>\n".join(tiny.documents()))
    assert json.loads(done.stdout)["provenance"]["documents"] == 30


@pytest.mark.parametrize("width", [60, 80, 100])
def test_help_fills_its_lines_whatever_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for name in NAMES:
        said = CliRunner().invoke(app, [name, "--help"]).stdout
        lines = [line.strip() for line in said.partition("Usage:")[2].partition("╭")[0].splitlines()][1:]
        for line, below in pairwise(lines):
            if line and below:  # of one paragraph: the next word did not fit
                assert len(line) + 1 + len(below.split()[0]) > width - 2, (name, line)


def test_report_and_compare(scanned, tmp_path):
    page, plot = scanned / "report.html", scanned / "plots" / "profile.png"
    page.unlink()
    plot.unlink()
    assert CliRunner().invoke(app, ["report", str(scanned)]).exit_code == 0
    assert page.exists() and not plot.exists()
    assert CliRunner().invoke(app, ["report", str(scanned), "--png"]).exit_code == 0
    assert plot.exists()
    out = tmp_path / "both"
    arguments = ["compare", str(scanned), str(scanned), "--labels", "a,b", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert [m["label"] for m in json.loads(done.stdout)["models"]] == ["a", "b"]
    assert (out / "compare.html").exists()
    assert not (out / "plots" / "overlay.png").exists()
    CliRunner().invoke(app, [*arguments, "--force", "--png"])
    assert (out / "plots" / "overlay.png").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["report", "--help"],
        ["compare", "--help"],
        ["scan", "--help"],
        ["tokens", "--help"],
        ["explore", "--help"],
    ],
)
def test_help_comes_at_once(arguments):
    assert not {"torch", "transformers", "datasets", "numpy", "matplotlib", "jinja2"} & loaded_by(arguments)


def test_report_and_compare_load_no_torch(scanned, tmp_path):
    for arguments in (["report", scanned], ["compare", scanned, scanned, "--out", tmp_path / "c"]):
        assert not {"torch", "transformers", "datasets", "matplotlib"} & loaded_by(arguments)


def test_wrong_input_is_one_line_and_exit_code_2(folder, text, scanned, tmp_path, capsys, monkeypatch):
    empty, latin, image = tmp_path / "empty.txt", tmp_path / "latin.txt", tmp_path / "vision"
    empty.write_text("")
    latin.write_bytes(b"caf\xe9 au lait")
    image.mkdir()
    (image / "config.json").write_text('{"model_type": "vit", "architectures": ["ViTModel"]}')
    (image / "model.safetensors").write_bytes(b"")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    new = ["--out", tmp_path / "new"]
    cases = [
        (["scan", "no/such-model", *new], "cannot find the model 'no/such-model'"),
        (["scan", "./nowhere", *new], "no such model folder"),
        (["scan", image, *new], "expected a text model"),
        (["scan", bare, *new], "weights"),
        (["scan", folder, "--text", empty, *new], "empty"),
        (["scan", folder, "--text", latin, *new], "UTF-8"),
        (["scan", folder, "--text", tmp_path / "gone.txt", *new], "got neither"),
        (["scan", folder, "--text", text, "--window", "9999", *new], "at least one window"),
        (["scan", folder, "--tokens", "many", *new], "--tokens"),
        (["scan", folder, "--text", text, "--layers-path", "model.norm", *new], "ModuleList"),
        (["scan", folder, "--device", "abacus", *new], "device"),
        (["scan", folder, "--text", text, "--out", scanned], "--force"),
        (["scan", folder, "--out", folder, "--force"], "no result folder|not replaced"),
        (["report", tmp_path], "result.json"),
        (["compare", scanned], "two or more"),
    ]
    for arguments, expected in cases:
        said = fails(arguments, capsys, monkeypatch)
        assert re.search(expected, said), (arguments, said)
        assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_result_of_another_schema_is_refused(scanned, tmp_path, capsys, monkeypatch):
    document = json.loads((scanned / "result.json").read_text())
    document["schema"] = 99
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert "schema" in fails(["report", tmp_path], capsys, monkeypatch)


def test_plain_tables_are_ascii_and_hold_no_escapes(scanned, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    usual = CliRunner().invoke(app, ["report", str(scanned)]).stdout
    assert "\x1b[" in usual and "█" in usual
    plain = CliRunner().invoke(app, ["--plain", "report", str(scanned)]).stdout
    assert plain.isascii() and "\x1b" not in plain
    assert "held-out" in plain and "##" in plain
    assert CliRunner().invoke(app, ["report", str(scanned)]).stdout == usual


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("rectilinear pr", {"prune", "pretrain", "probe"}), ("rectilinear scan demo --sink", {"--sink-multiple"})],
)
def test_the_shell_completes_commands_and_options(typed, offered):
    asked = {"_RECTILINEAR_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    code = "import sys; sys.argv = ['rectilinear']; from rectilinear.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, check=False, capture_output=True)
    assert set(done.stdout.decode().split()) == offered
