"""Prompts to be completed, as they come in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rectilinear.data.text import read_rows
from rectilinear.errors import TextError, first_line

LISTS = (".yaml", ".yml")


def read_prompts(source: str) -> tuple[str, ...]:
    """Return the prompts of a YAML list of texts, a text file of one a line, or rows with a `prompt` (jsonl, parquet).

    A Hub data set is read like rows. White space at the end of a prompt is dropped: a word's own space belongs to the
    completion. Raises TextError for a source without prompts, or one that cannot be read.
    """
    path = Path(source)
    if path.suffix in LISTS:
        found = _listed(path)
    elif path.suffix == ".txt":
        found = _text(path).splitlines()
    else:
        found = [row.get("prompt") for row in read_rows(source)]
    for number, prompt in enumerate(found, 1):
        if not isinstance(prompt, str):
            raise TextError(f"expected a text as prompt {number} of {source}, got {type(prompt).__name__}")
    prompts = tuple(text for prompt in found if (text := prompt.rstrip()))
    if not prompts:
        raise TextError(f"expected prompts in {source}, got none")
    return prompts


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"cannot read {path}: {first_line(error)}") from error


def _listed(path: Path) -> list[Any]:
    from rectilinear.plainyaml import from_yaml

    try:
        found = from_yaml(_text(path))
    except ValueError as error:
        raise TextError(f"expected a YAML list of prompts in {path}, got: {first_line(error)}") from error
    if not isinstance(found, list):
        raise TextError(f"expected a YAML list of prompts in {path}, got {type(found).__name__}")
    return found
