"""What has been graded so far, kept as it comes in: a judge costs money, so nothing is asked twice."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TextIO

from rectilinear.errors import ResultError
from rectilinear.results.judging import Completion, Graded


class Journal:
    """A file of JSON lines: the settings, then completions and gradings. Without a path nothing is kept.

    An interrupted run is taken up where it stopped; a last line cut short is dropped. Raises ResultError where the file
    is of other settings, naming what differs, or cannot be read or written.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.completions: list[Completion] = []
        self.graded: list[Graded] = []
        self._file: TextIO | None = None
        if path is None:
            return
        try:
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            if lines:
                self._check(_decoded(lines[0], path), settings)
                for line in lines[1:]:
                    self._take(_decoded(line, path))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
            self._file.truncate(sum(len(line) + 1 for line in lines))
        except OSError as error:
            raise ResultError(f"cannot keep what is graded in {path}: {error.strerror or error}") from error
        if not lines:
            self._write({"settings": settings})

    def add(self, entry: Completion | Graded) -> None:
        """Keep a completion or a grading."""
        (self.completions if isinstance(entry, Completion) else self.graded).append(entry)  # type: ignore[arg-type]
        self._write({type(entry).__name__.lower(): dataclasses.asdict(entry)})

    def close(self, *, done: bool) -> None:
        """Close the file, and remove it where all is `done`."""
        if self._file is not None and self.path is not None:
            self._file.close()
            if done:
                self.path.unlink(missing_ok=True)

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            self._file = None  # it would try the same line again, as it closes
            raise ResultError(
                f"cannot keep what is graded in {self.path}: {error.strerror or error}; what is in it stays: run again "
                "to go on"
            ) from error

    def _check(self, header: dict[str, Any], settings: dict[str, Any]) -> None:
        before = header.get("settings") or {}
        differs = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        if differs:
            raise ResultError(
                f"{self.path} holds grades given under another {', another '.join(differs)}: go on as before, or "
                "remove it and start anew"
            )

    def _take(self, line: dict[str, Any]) -> None:
        try:
            if "completion" in line:
                self.completions.append(Completion(**line["completion"]))
            else:
                self.graded.append(Graded(**line["graded"]))
        except (KeyError, TypeError) as error:
            raise ResultError(f"{self.path} is damaged: {error}; remove it and start anew") from error


def _decoded(line: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise ResultError(f"{path} is damaged: {error}; remove it and start anew") from error
    if not isinstance(found, dict):
        raise ResultError(f"{path} is damaged: expected objects, got {type(found).__name__}; remove it and start anew")
    return found
