import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from rectilinear.cli.main import app


@pytest.fixture
def bare(folder, tmp_path):
    """The tiny model with weights that nobody can read."""
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").write_bytes(b"")
    return tmp_path / "bare"


PLAN = ("--plan", "--dry-run")


def dry_run(*arguments):
    return CliRunner().invoke(app, ["scan", *map(str, arguments), "--dry-run"])


def test_plan_is_another_name_for_it(bare):
    plans = [CliRunner().invoke(app, ["scan", str(bare), "--tokens", "1600", name]).stdout for name in PLAN]
    told = [[line for line in plan.splitlines() if not line.startswith("time")] for plan in plans]
    assert told[0] == told[1]
    assert len(told[0]) > 8


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(bare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    before = sorted(tmp_path.rglob("*"))
    done = dry_run("bare", "--tokens", "1600", "--window", "32")
    assert done.exit_code == 0, done.output
    said = {line[:12].strip(): line[12:].strip() for line in done.stdout.splitlines()}
    assert re.fullmatch(r"\d+\.\d s on cpu at the least: matrix products, as fast as one was now", said.pop("time"))
    assert said == {
        "model": "bare",
        "text": "demo",
        "layers": "3 of width 32",
        "tokens": "1,600 asked for",
        "tokens / d": "50.0 paper, 37.5 held-out",
        "window": "32 tokens",
        "batches": "2, more where documents are short",
        "weights": "138,112 bytes (138.1 kB) in float32",
        "moments": "73,632 bytes (73.63 kB); with sinks 138,552 bytes (138.6 kB)",
        "on cpu": "276,664 bytes (276.7 kB) of weights and moments, with sinks",
        "output": "scan-bare",
    }
    assert sorted(tmp_path.rglob("*")) == before
    assert "all" in dry_run(bare, "--tokens", "all").stdout
    assert "3 of width 32, 2 of them measured" in dry_run(bare, "--layers", "0,2").stdout
    assert re.search(r"pairs +163,840 bytes", dry_run(bare, "--pairs").stdout)  # twice ten products of 32 x 32
    assert re.search(r"on disk +80,688 bytes \(80.69 kB\)", dry_run(bare, "--keep-moments").stdout)


def test_a_dry_run_as_json(bare):
    document = json.loads(dry_run(bare, "--json", "--submodules", "--dtype", "bfloat16").stdout)
    assert (document["layers"], document["width"], document["dtype"]) == (3, 32, "bfloat16")
    assert document["out"] is None and document["least_seconds"] > 0
    assert document["devices"]["cpu"]["weights"] == document["weights_bytes"]
    assert document["moments_bytes"] > 2.5 * json.loads(dry_run(bare, "--json").stdout)["moments_bytes"]


def test_a_dry_run_counts_quantised_weights_as_their_files_hold_them(bare):
    path = bare / "config.json"
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": quantised}))
    packed = {f"w{i}": np.zeros(1000, np.uint8) for i in range(9)}
    save_file(packed, bare / "model.safetensors")
    document = json.loads(dry_run(bare, "--json").stdout)
    assert document["weights_bytes"] == document["devices"]["cpu"]["weights"] == 9000
    assert document["dtype"] == "quantised float32"


def test_a_dry_run_refuses_what_a_scan_would(bare, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    for arguments in (["--out", tmp_path / "there"], ["--text", "gone.txt"], ["--device", "abacus"]):
        assert dry_run(bare, *arguments).exit_code == 1  # main() makes it a line and exit code 2
