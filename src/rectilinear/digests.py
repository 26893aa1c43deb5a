"""SHA-256 of what one command writes and another builds on: a flipped bit is found before it is built on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError

SEAL = "sha256"  # in a document: of the rest of it
AGAIN = "copy it again, or scan again"


def digest(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
