"""Files are there whole or not at all, and a disk that refuses one is told in one line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from rectilinear.errors import ResultError


@contextmanager
def writing(place: str | Path, doing: str = "write") -> Iterator[None]:
    """Raise ResultError, as "cannot write PLACE: ...", where the disk refuses what is done within."""
    try:
        yield
    except OSError as error:
        raise ResultError(f"cannot {doing} {place}: {error.strerror or error}") from error


def write_whole(file: Path, data: bytes) -> None:
    """Put a file in its place, or in that of an older one, by a neighbour that never stays; raises OSError."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(data)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def into(folder: Path) -> Iterator[Path]:
    """Give an empty neighbour of an existing folder; what is written there goes into that one, if all of it was.

    Raises ResultError where the disk refuses, and leaves the folder as it was.
    """
    folder = folder.absolute()
    with writing(folder), TemporaryDirectory(prefix=neighbours(folder), dir=folder.parent) as place:
        part = Path(place)
        yield part
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            target = folder / file.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def neighbours(out: Path) -> str:
    """Return what the names of the folders that `out` is written in begin with: hidden, beside it, and of no other."""
    return f".{out.name}.writing-"


def under_way(target: Path, suffix: str = "") -> Path:
    """Return where what is on the way to `target` is kept until that is there: a hidden neighbour."""
    return target.with_name(f".{target.name}.partial{suffix}")


def gone(place: Path) -> Path:
    """Return where what lay at `place` is on its way out."""
    return place.with_name(f".{place.name.removeprefix('.')}.gone")


def discard(place: Path) -> None:
    """Remove a folder, if it is there, so that a kill on the way leaves no part of it in its place."""
    away = gone(place)
    shutil.rmtree(away, ignore_errors=True)  # of an earlier kill
    with suppress(OSError):
        place.replace(away)
    shutil.rmtree(away, ignore_errors=True)
