"""One process at a time writes an output folder: a lock beside it, which the system frees when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rectilinear.errors import ResultError
from rectilinear.files import writing
from rectilinear.report.swap import recover


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold `out` against other processes; the same process may lock it again while it does.

    What killed processes have left beside it goes. Folders above it are made, and taken away where nothing came into
    them. Raises ResultError where another process holds `out`, or its place cannot be written.
    """
    out = out.absolute()
    missing = [parent for parent in out.parents if not parent.exists()]
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0, is_singleton=True, thread_local=False)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ResultError(f"another process is writing {out}: wait for it, or choose another --out") from None
    except OSError as error:
        raise ResultError(f"cannot write {out}: {error.strerror or error}") from error
    try:
        if lock.lock_counter == 1:
            with writing(out):
                recover(out)
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows keeps a file that is open
                Path(
                    lock.lock_file
                ).unlink()  # before it is free: who waits for it sees that it is gone, and tries again
        lock.release()
        with suppress(OSError):
            for parent in missing:
                parent.rmdir()
