"""The log of runs in a reproduction's folder: what is finished in it need not run again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.files import write_whole, writing
from rectilinear.reading import read_json
from rectilinear.results import SCHEMA

DOCUMENT, RUNS, REPORT = "runs.json", "runs", "report"
AGAIN = "start again with --force"


@dataclass
class Log:
    """The runs of a scale in the folder `out`: by name, their command and how long it took, None where not done."""

    out: Path
    scale: str
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

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
        found = read_json(file, AGAIN)
        runs = found.get("runs")
        if not isinstance(runs, dict) or not all(map(_is_run, runs.values())):
            raise ResultError(f"expected runs, each with a command and its seconds, in {file}, got others; {AGAIN}")
        made = found.get("scale")
        if (made, found.get("schema")) != (scale, SCHEMA):
            raise ResultError(
                f"expected a reproduction at scale {scale} in {out}, got one at {made}: use another --out"
            )
        return cls(out, scale, runs)

    def begun(self, name: str, command: Sequence[str]) -> bool:
        """Tell whether what lies in a run's folder is of this very command, finished or not."""
        return self.runs.get(name, {}).get("command") == list(command) and (self.folder / name).is_dir()

    def finished(self, name: str, command: Sequence[str]) -> bool:
        """Tell whether this very command has finished, and its folder is there."""
        return self.begun(name, command) and self.seconds(name) is not None

    def seconds(self, name: str) -> float | None:
        """Return how long a finished run took, None for another."""
        found: float | None = self.runs.get(name, {}).get("seconds")
        return found

    def start(self, name: str, command: Sequence[str]) -> None:
        """Note that a run begins; those that read its folder are finished no more. Raises ResultError as `write`."""
        place = str(self.folder / name)
        self.runs = {other: entry for other, entry in self.runs.items() if place not in entry["command"]}
        self.runs[name] = {"command": list(command), "seconds": None}
        self.write()

    def finish(self, name: str, seconds: float) -> None:
        """Note that a run that was started has finished; raises ResultError as `write` does."""
        self.runs[name]["seconds"] = round(seconds, 1)
        self.write()

    def write(self) -> None:
        """Write the log, whole or not at all; raises ResultError where that fails."""
        text = json.dumps({"schema": SCHEMA, "kind": "runs", "scale": self.scale, "runs": self.runs}, indent=1)
        with writing(self.out / DOCUMENT):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.out / DOCUMENT, f"{text}\n".encode())


def _is_run(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("command"), list):
        return False
    seconds = entry.get("seconds")
    return seconds is None or (type(seconds) in (int, float) and 0 <= seconds < math.inf)
