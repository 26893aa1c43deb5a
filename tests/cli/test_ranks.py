"""Scans by several processes, as torchrun starts them, and what happens when one of them dies."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import tiny
from preempted import MAIN, in_forward
from rectilinear.report.folder import load


def dying(call):
    """Return code after which process 1 is killed, as by a machine out of memory, in a forward pass."""
    return in_forward(call, "SIGKILL", where='os.environ["RANK"] == "1"')


@pytest.fixture(scope="module")
def long_text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in tiny.documents(60)))
    return path


@pytest.fixture(scope="module")
def massive(tmp_path_factory):
    """A saved tiny model with sink tokens."""
    path = tmp_path_factory.mktemp("models") / "massive"
    tiny.massive(initializer_range=0.15).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def options(model, text):
    return ["scan", str(model), "--text", str(text), "--window", "32", "--batch-tokens", "256", "--tokens", "all"]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def launched(processes, *arguments, code=None, tmp_path=None):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    target = ["-m", "rectilinear"]
    if code is not None:
        (tmp_path / "script.py").write_text(code)
        target = [str(tmp_path / "script.py")]
    command = [*launcher, *target, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=580, check=False)


def numbers(document):
    """Yield every number of a result with its place, provenance aside."""

    def walk(value, place):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f"{place}.{key}")
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from walk(item, f"{place}[{index}]")
        else:
            yield place, value

    return dict(walk({key: value for key, value in document.items() if key != "provenance"}, ""))


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_give_the_result_of_one(processes, massive, long_text, tmp_path):
    arguments = [*options(massive, long_text), "--submodules", "--pairs", "--out"]
    alone = subprocess.run(
        [sys.executable, "-m", "rectilinear", *arguments, str(tmp_path / "one")],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    done = launched(processes, *arguments, tmp_path / "many")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean") == alone.stdout.count("mean")  # one table
    assert done.stderr.count("Report:") == 1
    one, many = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "many"))
    assert many["provenance"]["processes"] == processes and many["provenance"]["threads"] == 1
    assert one["layers"][0]["sinks"]["count"] > 0
    mine, theirs = numbers(one), numbers(many)
    assert mine.keys() == theirs.keys()
    for place, value in mine.items():
        if isinstance(value, float):
            assert theirs[place] == pytest.approx(value, rel=1e-10, abs=1e-12), place
        else:
            assert theirs[place] == value, place


def test_killed_processes_go_on_to_the_same_result(massive, long_text, tmp_path):
    """Process 1 is killed in the fit part, then in the held-out part; the third try ends as if it never was."""
    arguments = [*options(massive, long_text), "--batch-tokens", "64", "--submodules", "--pairs", "--keep-moments"]
    kept = [*arguments, "--checkpoint-every", "1tokens", "--resume", "--out", tmp_path / "out"]
    states = []
    for call in (20, 7):
        assert launched(2, *kept, code=dying(call) + MAIN, tmp_path=tmp_path).returncode != 0
        (last,) = (tmp_path / ".out.partial").glob("after-*")
        assert sorted(path.name for path in last.iterdir()) == ["process-0", "process-1"]
        states.append(last.name)
    assert states == ["after-00000022-batches", "after-00000034-batches"]  # of 28 and 10
    for place in (kept, [*arguments, "--out", tmp_path / "whole"]):
        done = launched(2, *place)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / ".out.partial").exists()
    again, whole = (load(tmp_path / name) for name in ("out", "whole"))
    for result in (again, whole):
        result.provenance.pop("command")
    assert tiny.figures(again) == tiny.figures(whole)
    for file in (tmp_path / "whole" / "moments").iterdir():
        assert (tmp_path / "out" / "moments" / file.name).read_bytes() == file.read_bytes()


STEP = """
import os, signal, time
from pathlib import Path
from rectilinear.ops import passes
forward, calls = passes.forward, []
pids = [Path(__file__).with_name(f"pid-{rank}") for rank in (0, 1)]
pids[int(os.environ["RANK"])].write_text(str(os.getpid()))
def preempted(*arguments):
    calls.append(1)
    if os.environ["RANK"] == "0" and len(calls) == 2:  # the other has had a batch too by now
        for process in (*(int(pid.read_text()) for pid in pids), os.getppid()):
            os.kill(process, signal.SIGTERM)  # as Slurm does: every process, and the launcher
        time.sleep(1)  # in which the launcher passes its own on
    forward(*arguments)
passes.forward = preempted
"""


def test_a_sigterm_to_a_whole_step_keeps_the_state_of_all(massive, long_text, tmp_path):
    arguments = [*options(massive, long_text), "--batch-tokens", "64", "--checkpoint-every", "60min"]
    done = launched(2, *arguments, "--out", tmp_path / "out", code=STEP + MAIN, tmp_path=tmp_path)
    assert done.returncode == 1 and "SIGTERM" in done.stderr  # the launcher's own
    (last,) = (tmp_path / ".out.partial").glob("after-*")
    assert sorted(path.name for path in last.iterdir()) == ["process-0", "process-1"]
    assert "has ended or does not answer" not in done.stderr


def test_a_killed_process_ends_all_of_them_in_seconds(massive, long_text, tmp_path):
    started = time.monotonic()
    done = launched(2, *options(massive, long_text), "--out", tmp_path / "out", code=dying(3) + MAIN, tmp_path=tmp_path)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr  # said by torchrun
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - started < 300  # of which the most is loading torch three times


def on_terminal(command, **options):
    """Start a command whose standard error is a terminal; return it, and what reads there to the end."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(command, stderr=theirs, text=True, **options)
    os.close(theirs)

    def read():
        found = b""
        with contextlib.suppress(OSError):  # how the other end's closing is told
            while more := os.read(ours, 1 << 16):
                found += more
        os.close(ours)
        return found.decode()

    return process, read


def test_without_a_launcher_one_draws_a_bar_and_the_others_say_that_one_is_gone(massive, long_text, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = [
        on_terminal(
            [sys.executable, "-c", dying(3) + MAIN, *options(massive, long_text), "--out", str(tmp_path / "out")],
            env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TERM="xterm"),
        )
        for rank in (0, 1)
    ]
    with ThreadPoolExecutor() as pool:
        said = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text) for text in pool.map(lambda one: one[1](), started)]
    assert [process.wait(580) for process, _ in started] == [2, -9]
    assert "error: process 0 of 2: another process of this scan has ended or does not answer" in said[0]
    assert "Traceback" not in said[0]
    assert "scanning" in said[0] and "scanning" not in said[1]
    assert not (tmp_path / "out").exists()


def test_what_processes_cannot_share_is_refused(monkeypatch):
    from rectilinear.errors import ModelError
    from rectilinear.ops.ranks import device_here

    assert device_here("cpu") == "cpu"
    for device in ("balanced", "cuda:1"):
        with pytest.raises(ModelError, match="a device for each process"):
            device_here(device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ModelError, match="a GPU for each process, got 2 GPUs for process 2"):
        device_here("auto")
    assert device_here("cpu") == "cpu"
