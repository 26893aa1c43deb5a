"""What a long command has found so far, kept as it comes in, for the run that goes on after one that was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.reading import from_json


class Journal:
    """A file of JSON lines: the settings, then entries. Without a path nothing is kept.

    entries: those of earlier runs; a last line cut short is dropped. keeps: what they are, in words. Nothing is written
    before the first entry. Raises ResultError where the file is of other settings, naming what differs, or cannot be
    read or written.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any], keeps: str) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self._settings = settings
        self._keeps = keeps
        self._length = 0  # bytes of whole lines
        if path is None or not path.exists():
            return
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise ResultError(f"cannot keep {keeps} in {path}: {error.strerror or error}") from error
        if lines:
            self._check(self._decoded(lines[0]))
            self.entries = [self._decoded(line) for line in lines[1:]]
            self._length = sum(len(line) + 1 for line in lines)

    def add(self, entry: dict[str, Any]) -> None:
        """Keep an entry."""
        if self.path is None:
            return
        lines = [entry] if self._length else [{"settings": self._settings}, entry]
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(self._length)  # what a kill or a full disk has cut short
                file.write(data)
        except OSError as error:
            raise ResultError(
                f"cannot keep {self._keeps} in {self.path}: {error.strerror or error}; what is in it stays: run again "
                "to go on"
            ) from error
        self._length += len(data)

    def remove(self) -> None:
        """Take the file away: all is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def damaged(self, error: object) -> ResultError:
        """Return what to raise where an entry is not what it should be."""
        return ResultError(f"{self.path} is damaged: {error}; remove it and start anew")

    def _check(self, header: dict[str, Any]) -> None:
        before = header.get("settings") or {}
        if not isinstance(before, dict):
            raise self.damaged(f"expected settings, got {type(before).__name__}")
        differs = sorted(name for name in {*before, *self._settings} if before.get(name) != self._settings.get(name))
        if differs:
            raise ResultError(
                f"{self.path} keeps {self._keeps} with another {', another '.join(differs)}: go on as before, or "
                "remove it and start anew"
            )

    def _decoded(self, line: bytes) -> dict[str, Any]:
        try:
            found = from_json(line)
        except ValueError as error:
            raise self.damaged(error) from error
        if not isinstance(found, dict):
            raise self.damaged(f"expected objects, got {type(found).__name__}")
        return found
