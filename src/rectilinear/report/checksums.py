"""Checksums of a folder's data: a flipped bit is found before a figure is cited. Pictures and pages are drawn again."""

from __future__ import annotations

import re
from pathlib import Path

from rectilinear.digests import digest
from rectilinear.errors import ResultError
from rectilinear.files import write_whole

SUMS = "SHA256SUMS"  # in the form that `sha256sum --check` reads
DATA = {".json", ".jsonl", ".safetensors", ".yaml", ".model"}  # pages, tables and pictures can be drawn again
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_sums(folder: Path) -> None:
    """Write the sums of all data files below a folder into it; raises OSError where that fails."""
    lines = [f"{digest(folder / name)}  {name}\n" for name in _data(folder)]
    write_whole(folder / SUMS, "".join(lines).encode(errors="surrogateescape"))


def verify(folder: Path) -> tuple[int, list[str]]:
    """Return how many files of a folder are as they were written, and a line for each that is not.

    Raises ResultError where the folder holds no sums, or sums that cannot be read.
    """
    if not folder.is_dir():
        raise ResultError(f"expected a folder to verify, got {folder}")
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        raise ResultError(f"expected {SUMS} in {folder}, got none: it was written by an earlier version") from None
    except OSError as error:
        raise ResultError(f"cannot read {folder / SUMS}: {error.strerror or error}") from error
    found = [LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    known = {match[2]: match[1] for match in found if match}
    if len(known) != len(found):
        raise ResultError(f"{folder / SUMS} is damaged: expected lines of a sum and a name")
    wrong = [f"{name}: {said}" for name, expected in known.items() if (said := _fault(folder, name, expected))]
    wrong += [f"{name}: is not among those written" for name in _data(folder) if name not in known]
    return len(known) - sum(line.split(": ")[0] in known for line in wrong), wrong


def _fault(folder: Path, name: str, expected: str) -> str | None:
    """Return what is wrong with a file, None where nothing is."""
    file = folder / name
    try:
        if not file.resolve().is_relative_to(folder.resolve()):
            return "lies outside the folder"
        if not file.is_file():
            return "is missing"
        return None if digest(file) == expected else "is not as it was written"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError as error:  # a name with a null character
        return f"cannot be read: {error}"


def _data(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in DATA and p.is_file())
