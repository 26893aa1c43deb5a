"""A disk that is full or loses a bit, and what a folder holds."""

import re
import resource
from contextlib import contextmanager

import pytest

from rectilinear.errors import ModelError, ResultError

REFUSED = re.compile(r"(cannot write|cannot keep) .*(too large|No space)", re.IGNORECASE)


@contextmanager
def full_after(size):
    """Let no file grow beyond `size` bytes: the system refuses, whoever writes, native code too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def held(folder):
    """Return the files below a folder by name, with what is in them."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sizes(folder):
    """Return limits in bytes at which one or more of a folder's files do not fit: nothing, halves, all but a byte."""
    found = {len(content) for content in held(folder).values()}
    return sorted({0, *(size // 2 for size in found), *(size - 1 for size in found)})


def limits(folder):
    """Return a few sizes: at which no file fits, the largest does not by half, and by a byte."""
    most = max(map(len, held(folder).values()))
    return 0, most // 2, most - 1


def refused(write, limit):
    """Let `write` meet a disk that is full after `limit` bytes of a file, and expect one line."""
    with full_after(limit), pytest.raises((ResultError, ModelError)) as caught:
        write()
    said = str(caught.value)
    assert REFUSED.match(said) and "\n" not in said, said


def unchanged(folder, write, limits):
    """Expect that `write` is refused at each of the limits, and leaves what is in a folder, hidden files too."""
    before = held(folder)
    for limit in limits:
        refused(write, limit)
        assert held(folder) == before, limit


def flip(file):
    """Flip one bit in the middle of a file, in a copy of its own where it has links; return what it held."""
    before = file.read_bytes()
    middle = len(before) // 2
    file.unlink()
    file.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    return before
