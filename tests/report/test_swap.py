"""Whatever ends a process that replaces a folder: the old or the new one is there, and nothing else stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from rectilinear.errors import ResultError
from rectilinear.report import swap
from rectilinear.report.folder import check_writable, write_folder
from rectilinear.report.lock import locked

MARKER = "result.json"


def write(out, text, force=True):
    return write_folder(out, lambda folder: (folder / MARKER).write_text(text) and None, force=force, marker=MARKER)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folders_change_places_at_one_stroke_here(tmp_path):
    if sys.platform != "linux":
        pytest.skip("only Linux lets folders change places")
    one, other = write(tmp_path / "one", "1"), write(tmp_path / "other", "2")
    assert swap._exchanged(one, other)
    assert ((one / MARKER).read_text(), (other / MARKER).read_text()) == ("2", "1")
    assert not swap._exchanged(one, tmp_path / "none")


PLACES = [  # whether at one stroke, which folder is on its way, whether it has got there, and what is there in the end
    (True, "new", False, "old"),
    (True, "new", True, "new"),
    (False, "out", False, "old"),
    (False, "out", True, "old"),
    (False, "new", False, "old"),
    (False, "new", True, "new"),
]


@pytest.mark.parametrize(("whole", "moved", "late", "left"), PLACES)
def test_a_signal_inside_leaves_the_old_or_the_new(whole, moved, late, left, tmp_path, monkeypatch):
    out, rename, exchanged, heard = write(tmp_path / "out", "old"), Path.replace, swap._exchanged, []

    def interrupted(do, one, other):
        if one.name != moved or heard:
            return do(one, other)
        heard.append(1)
        if late:
            do(one, other)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", lambda one, other: interrupted(rename, one, other))
    monkeypatch.setattr(swap, "_exchanged", lambda one, other: whole and interrupted(exchanged, one, other))
    with pytest.raises(KeyboardInterrupt):
        write(out, "new")
    assert (out / MARKER).read_text() == left
    assert names(tmp_path) == ["out"]


KILLED = f"""
import os, signal, sys
from pathlib import Path
from rectilinear.report import swap
from rectilinear.report.folder import write_folder
out, moved, late, whole = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", sys.argv[4] == "True"
rename, exchanged = Path.replace, swap._exchanged
def killed(do, one, other):
    if one.name == moved:
        if late:
            do(one, other)
        os.kill(os.getpid(), signal.SIGKILL)
    return do(one, other)
Path.replace = lambda one, other: killed(rename, one, other)
swap._exchanged = (lambda one, other: killed(exchanged, one, other)) if whole else (lambda one, other: False)
write_folder(out, lambda folder: (folder / "{MARKER}").write_text("new") and None, force=True, marker="{MARKER}")
"""


@pytest.mark.parametrize(("whole", "moved", "late", "left"), PLACES)
def test_a_kill_inside_leaves_the_old_or_the_new_to_the_next_holder(whole, moved, late, left, tmp_path):
    out = write(tmp_path / "out", "old")
    other = tmp_path / ".out.writing-a.lock"  # that of an `out.writing-a`
    other.touch()
    command = [sys.executable, "-c", KILLED, str(out), moved, str(late), str(whole)]
    assert subprocess.run(command, check=False).returncode == -9
    assert len(names(tmp_path)) > 2
    with pytest.raises(ResultError, match="exists; add --force"):
        check_writable(out, False, MARKER)
    check_writable(out, True, MARKER)
    with locked(out):
        assert (out / MARKER).read_text() == left
    assert names(tmp_path) == [".out.writing-a.lock", "out"]


def test_another_folders_neighbour_stays(tmp_path):
    with locked(tmp_path / "out-a"), swap.neighbour(tmp_path / "out-a") as part:
        with locked(tmp_path / "out"), locked(tmp_path / "out-a"):
            assert part.is_dir()
    assert not names(tmp_path)
