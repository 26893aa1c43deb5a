"""A new folder in the place of an old one: at every moment OUT is one of the two, whatever ends the process."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rectilinear.files import gone, neighbours, under_way

OLD = "old"  # in a neighbour: what OUT held, on its way out
HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def neighbour(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out`, which goes in the end; where a kill leaves it, `recover` takes it away.

    Raises OSError where it cannot be made.
    """
    out = out.absolute()
    part = None
    try:
        part = Path(tempfile.mkdtemp(prefix=neighbours(out), dir=out.parent))
        yield part
    finally:
        if part is not None:
            _clear(part, out)


def swap(fresh: Path, out: Path, part: Path) -> None:
    """Put the folder `fresh` in the place of `out`; what was there stays in the neighbour `part`; raises OSError.

    Where the system cannot let two folders change places, `out` is away for a moment: the end of the neighbour, or the
    next to hold `out`, puts it back if it must.
    """
    if not os.path.lexists(out):
        fresh.replace(out)
    elif not _exchanged(fresh, out):
        out.replace(part / OLD)
        fresh.replace(out)


def recover(out: Path) -> None:
    """Take away what killed processes have left beside `out`, and put `out` back where they had it aside.

    Only for who holds `out`: the neighbours of a process at work look the same.
    """
    for part in _left(out):
        _clear(part, out)
    for place in (out, under_way(out)):
        shutil.rmtree(gone(place), ignore_errors=True)


def held_aside(out: Path) -> Path | None:
    """Return where a killed process has left the folder `out`, None where it is in its place or was never there."""
    if os.path.lexists(out):
        return None
    return next((part / OLD for part in _left(out.absolute()) if (part / OLD).exists()), None)


def _left(out: Path) -> list[Path]:
    """Return the neighbours of `out`: their names are of no other folder's, nor of its lock."""
    name = re.compile(re.escape(neighbours(out)) + r"[a-z0-9_]{8}")  # as tempfile draws them
    with suppress(OSError):
        return [path for path in out.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]
    return []


def _clear(part: Path, out: Path) -> None:
    """Remove a neighbour; `out` is put back first where it is nowhere else."""
    if not os.path.lexists(out) and os.path.lexists(part / OLD):
        (part / OLD).replace(out)
    shutil.rmtree(part, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places at one stroke; return False where the system or the disk cannot."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or a C library before 2018
        return False
    return bool(call(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0)
