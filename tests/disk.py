"""A disk that is full, and what a folder holds."""

import resource
from contextlib import contextmanager


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
