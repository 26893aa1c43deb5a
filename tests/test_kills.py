"""A real SIGKILL of a real command, and what `make kills` compares after many."""

import json
import subprocess
import sys

import kills
from typer.testing import CliRunner

from preempted import MAIN, in_forward
from rectilinear.cli.main import app


def test_a_scan_that_is_killed_goes_on_over_an_old_one_and_leaves_nothing_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr("rectilinear.report.plots.scan_figures", lambda result: {})  # they take seconds
    whole, out = tmp_path / "whole", tmp_path / "run" / "out"
    scan = ["scan", "demo:tiny", "--tokens", "1024", "--batch-tokens", "256", "--keep-moments", "--out"]
    more = ["--checkpoint-every", "1tokens", "--resume", "--force"]
    assert CliRunner().invoke(app, [*scan, str(whole)]).exit_code == 0
    out.mkdir(parents=True)
    (out / "result.json").write_text("old")
    command = [sys.executable, "-c", in_forward(4, "SIGKILL") + MAIN, *scan, str(out), *more]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    left = {path.name.partition("-")[0] for path in out.parent.iterdir()}
    assert left == {"out", ".out.lock", ".out.partial", ".out.writing"}
    assert (out / "result.json").read_text() == "old"
    assert CliRunner().invoke(app, [*scan, str(out), *more]).exit_code == 0
    assert kills.differences(out, whole) == []
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_what_differs_is_told_but_for_what_must(tmp_path):
    for name, score in (("one", 1), ("other", 1), ("third", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.json").write_text(json.dumps({"score": score, "facts": [{"time": name, "seconds": name}]}))
        (folder / "b.safetensors").write_text(str(score))
        (folder / f"c{score}.html").write_text(name)
    assert kills.differences(tmp_path / "one", tmp_path / "other") == []
    assert kills.differences(tmp_path / "one", tmp_path / "third") == [
        "a.json has other contents",
        "b.safetensors has other bytes",
        "c1.html is in one only",
        "c2.html is in the other only",
    ]
