import subprocess
import sys

import pytest

from rectilinear.errors import ResultError
from rectilinear.report.lock import locked

HOLDER = """
import sys
from pathlib import Path
from rectilinear.report.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Start processes that hold a folder until their standard input ends."""
    started = []

    def start(out):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_another_process_is_kept_out_until_the_holder_ends(tmp_path, holder):
    out = tmp_path / "new" / "scan"
    process = holder(out)
    with pytest.raises(ResultError, match=r"another process is writing .*scan: wait for it, or choose another --out"):
        with locked(out):
            pass
    process.communicate("")
    with locked(out):
        pass
    assert not list(tmp_path.iterdir())


def test_a_holder_that_is_killed_leaves_no_lock(tmp_path, holder):
    process = holder(tmp_path / "scan")
    process.kill()
    process.wait()
    with locked(tmp_path / "scan"):
        pass
    assert not list(tmp_path.iterdir())


def test_the_same_process_may_lock_again_and_folders_that_were_filled_stay(tmp_path):
    out = tmp_path / "new" / "scan"
    with locked(out):
        with locked(out.parent / "." / "scan"):
            out.mkdir()
        assert {path.name for path in out.parent.iterdir()} == {".scan.lock", "scan"}  # still held
    assert [path.name for path in out.parent.iterdir()] == ["scan"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResultError, match="cannot write"):
        with locked(tmp_path / "file" / "scan"):
            pass
