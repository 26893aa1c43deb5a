"""The examples for many machines, on this one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rectilinear
import tiny
from rectilinear.cli.main import app

EXAMPLES = Path(__file__).parents[1] / "examples"
SBATCH = """#!/bin/sh
number=$(ls "$JOBS" | wc -l)
for word in "$@"; do printf '%s\\0' "$word"; done > "$JOBS/$number"
echo "job$number"
"""
RECTILINEAR = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word"; done > "$WORDS"
"""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "it's mine.jsonl"
    path.write_text("\n".join(json.dumps({"text": line}) for line in tiny.documents(60)))
    return path


@pytest.fixture(scope="module")
def whole():
    model = tiny.llama()
    return rectilinear.scan(model, tiny.tokenizer(), tiny.documents(60), window=32, batch_tokens=1024, tokens="all")


def options(folder, text):
    return [str(folder), "--text", str(text), "--window", "32", "--batch-tokens", "1024", "--tokens", "all"]


def same(out, whole):
    for a, b in zip(rectilinear.load_result(out).layers, whole.layers, strict=True):
        assert a.score.heldout == pytest.approx(b.score.heldout, abs=1e-6)
        assert a.score.paper == pytest.approx(b.score.paper, abs=1e-6)


def shared_out(script, *arguments):
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def test_an_executor_shares_a_scan_out(folder, text, whole, tmp_path):
    out = tmp_path / "many"
    shared_out("executor_scan.py", "--shards", 2, "--workers", 2, "--out", out, *options(folder, text))
    same(out / "scan", whole)


def test_dask_shares_a_scan_out(folder, text, whole, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install distributed")
    out = tmp_path / "many"
    with distributed.LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address=None) as cluster:
        cluster_at = ("--scheduler", cluster.scheduler_address)
        shared_out("executor_scan.py", "--shards", 2, *cluster_at, "--out", out, *options(folder, text))
    same(out / "scan", whole)


def test_ray_shares_a_scan_out(folder, text, whole, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install ray")
    out = tmp_path / "many"
    shared_out("ray_scan.py", "--shards", 2, "--workers", 2, "--out", out, *options(folder, text))
    same(out / "scan", whole)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_executor_takes_its_processes_along(number, tmp_path):
    """A module of the same name stands in for the scans: it says that it is there, and stays."""
    (tmp_path / "rectilinear").mkdir()
    (tmp_path / "pids").mkdir()
    sleeper = "import os, pathlib, time; pathlib.Path('pids', str(os.getpid())).touch(); time.sleep(100)"
    (tmp_path / "rectilinear" / "__init__.py").touch()
    (tmp_path / "rectilinear" / "__main__.py").write_text(sleeper)
    script = [
        sys.executable,
        str(EXAMPLES / "executor_scan.py"),
        "--shards",
        "3",
        "--workers",
        "2",
        "--out",
        "out",
        "x",
    ]
    with subprocess.Popen(script, cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while len(pids := [int(path.name) for path in (tmp_path / "pids").iterdir()]) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert len(list((tmp_path / "pids").iterdir())) == 2  # the third has not begun
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def slurm(tmp_path):
    """A Slurm that takes jobs in, and a function that then carries them out, each by the shell, in this process."""
    jobs, words = tmp_path / "jobs", tmp_path / "words"
    jobs.mkdir()
    for name, script in (("sbatch", SBATCH), ("rectilinear", RECTILINEAR)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "JOBS": str(jobs), "WORDS": str(words)}

    def submit(*arguments):
        subprocess.run(["sh", str(EXAMPLES / "slurm_array.sh"), *map(str, arguments)], check=True, env=environment)
        return [read(job) for job in sorted(jobs.iterdir())]

    def run(job, task=""):
        (wrapped,) = (word.removeprefix("--wrap=") for word in job if word.startswith("--wrap="))
        subprocess.run(["sh", "-c", wrapped], check=True, env={**environment, "SLURM_ARRAY_TASK_ID": str(task)})
        done = CliRunner().invoke(app, read(words))
        assert done.exit_code == 0, (done.output, done.exception)

    def read(file):
        return file.read_text().split("\0")[:-1]

    return submit, run


@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
def test_slurm_runs_two_arrays_and_two_merges(slurm, folder, text, whole, tmp_path):
    (submit, run), out = slurm, tmp_path / "many"
    fit, maps, heldout, scan = submit(2, out, *options(folder, text))
    assert "--array=1-2" in fit and "--array=1-2" in heldout
    assert "--requeue" in fit and "--requeue" in heldout
    assert "--dependency=afterok:job0" in maps and "--dependency=afterok:job1" in heldout
    assert "--dependency=afterok:job2" in scan
    for task in (2, 1, 1):  # the first is queued again, after its node was taken away
        run(fit, task)
    run(maps)
    for task in (1, 2):
        run(heldout, task)
    run(scan)
    same(out / "scan", whole)
