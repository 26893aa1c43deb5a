"""SHA-256 of what is written: a flipped bit is found before anything is built on it, or a figure cited."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.files import write_whole

SUMS = "SHA256SUMS"  # in the form that `sha256sum --check` reads
DATA = {".json", ".jsonl", ".safetensors", ".yaml", ".model"}  # pages, tables and pictures can be drawn again
LINE = re.compile(r"([0-9a-f]{64})  (.+)")
FILES = "files"  # in a document: the digests of those that it stands for, by name
SEAL = "sha256"  # in a document: of the rest of it
AGAIN = "copy it again, or scan again"


def digest(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_files(folder: Path) -> list[str]:
    """Return the names of all data files below a folder."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix in DATA and p.is_file())


def write_sums(folder: Path, names: Iterable[str] | None = None, coming: Path | None = None) -> None:
    """Write the sums of a folder's files, by default of its data files, into it; raises OSError where that fails.

    coming: a file that will be moved into the folder.
    """
    found = {name: folder / name for name in (data_files(folder) if names is None else names)}
    if coming is not None:
        found[coming.name] = coming
    lines = [f"{digest(file)}  {name}\n" for name, file in found.items()]
    write_whole(folder / SUMS, "".join(lines).encode(errors="surrogateescape"))


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sums in a folder by the names of files; raises OSError, and ResultError where they are damaged."""
    text = (folder / SUMS).read_text(encoding="utf-8", errors="surrogateescape")
    found = [LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    known = {match[2]: match[1] for match in found if match}
    if len(known) != len(found):
        raise ResultError(f"{folder / SUMS} is damaged: expected lines of a sum and a name")
    return known


def fault(folder: Path, name: str, expected: str) -> str | None:
    """Return what is wrong with a file of a folder, None where it has the sum expected of it."""
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


def check_digest(file: Path, expected: str, remedy: str = AGAIN) -> None:
    """Raise ResultError, with what to do, where a file is missing or not as it was written."""
    try:
        found = digest(file)
    except FileNotFoundError:
        raise ResultError(f"{file} is missing: {remedy}") from None
    except OSError as error:
        raise ResultError(f"cannot read {file}: {error.strerror or error}") from error
    if found != expected:
        raise ResultError(f"{file} is damaged, not as it was written: {remedy}")


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as it comes back from JSON, with a digest of the rest of it."""
    document = json.loads(json.dumps(document))  # tuples are lists there, and all keys strings
    return {**document, SEAL: _seal(document)}


def check_seal(file: Path, document: dict[str, Any], remedy: str = AGAIN) -> None:
    """Take the digest out of a document read from `file`; raise ResultError where it is of another content.

    One without a digest is of an earlier version, and stays as it is.
    """
    expected = document.pop(SEAL, None)
    if expected is not None and expected != _seal(document):
        raise ResultError(f"{file} is damaged, not as it was written: {remedy}")


def _seal(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
