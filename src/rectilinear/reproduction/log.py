"""The log of finished runs in a reproduction's folder: what is in it need not run again."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results import SCHEMA

DOCUMENT, RUNS, REPORT = "runs.json", "runs", "report"


@dataclass
class Log:
    """Which runs of a scale are finished in the folder `out`: by name, their command and how long it took."""

    out: Path
    scale: str
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the folders of runs lie."""
        return self.out / RUNS

    @classmethod
    def open(cls, out: Path, scale: str) -> Log:
        """Read the log of a folder, an empty one where there is none; raises ResultError for one of another scale."""
        file = out / DOCUMENT
        if not file.is_file():
            return cls(out, scale)
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            made, schema, runs = found["scale"], found["schema"], dict(found["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultError(f"cannot read {file}: {error}; start again with --force") from error
        if (made, schema) != (scale, SCHEMA):
            raise ResultError(
                f"expected a reproduction at scale {scale} in {out}, got one at {made}: use another --out"
            )
        return cls(out, scale, runs)

    def holds(self, name: str, command: str) -> bool:
        """Tell whether this very command has finished, and its folder is there."""
        return self.finished.get(name, {}).get("command") == command and (self.folder / name).is_dir()

    def seconds(self, name: str) -> float | None:
        """Return how long a finished run took, None for another."""
        return self.finished.get(name, {}).get("seconds")

    def add(self, name: str, command: str, seconds: float) -> None:
        """Note a finished run, on disk too; raises ResultError where that fails."""
        self.finished[name] = {"command": command, "seconds": round(seconds, 1)}
        self.write()

    def write(self) -> None:
        """Write the log, whole or not at all; raises ResultError where that fails."""
        text = json.dumps({"schema": SCHEMA, "kind": "runs", "scale": self.scale, "runs": self.finished}, indent=1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".runs-", dir=self.out) as part:
                file = Path(part) / DOCUMENT
                file.write_text(text + "\n", encoding="utf-8")
                file.replace(self.out / DOCUMENT)
        except OSError as error:
            raise ResultError(f"cannot write {self.out / DOCUMENT}: {error.strerror or error}") from error
