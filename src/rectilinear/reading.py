"""JSON as it comes in files: an object, or one line that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError, first_line

DEEPEST = 200  # lists and objects within each other: what goes through a document calls itself as often


def from_json(text: str | bytes) -> Any:
    """Return a JSON value; raises ValueError for what is none, and for what nests more than `DEEPEST` deep."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    level = [found]
    for _ in range(DEEPEST + 1):
        parts = (part for one in level for part in _inside(one))
        level = [part for part in parts if isinstance(part, (dict, list))]
        if not level:
            return found
    raise ValueError(f"it nests more than {DEEPEST} deep")


def read_json(file: Path, remedy: str) -> dict[str, Any]:
    """Return the object in a JSON file; raises ResultError, one line with a remedy, where none can be read from it."""
    try:
        found = from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # bytes that are no UTF-8 are a ValueError
        raise ResultError(f"cannot read {file}: {first_line(error)}; {remedy}") from error
    if not isinstance(found, dict):
        raise ResultError(f"expected a JSON object in {file}, got {type(found).__name__}; {remedy}")
    return found


def _inside(value: Any) -> Any:
    """Return the parts of a JSON value."""
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
