"""The verdicts of a search, kept for the one that goes on after it was stopped: no set of layers is tried twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.ops.journal import Journal
from rectilinear.results.checked import DAMAGED


@dataclass(frozen=True)
class Verdict:
    """What a set of layers was found to cost, and the runner's `passed` once it was known."""

    value: float
    passed: int


class Verdicts:
    """Verdicts by what was asked and the layers removed, in a `Journal` at `path`, whose errors these are."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self._journal = Journal(path, settings, "sets that were tried")
        self._known: dict[tuple[str, tuple[int, ...]], Verdict] = {}
        for entry in self._journal.entries:
            try:
                key = str(entry["asked"]), tuple(int(layer) for layer in entry["removed"])
                found = Verdict(float(entry["value"]), int(entry["passed"]))
            except DAMAGED as error:
                raise self._journal.damaged(error) from error
            self._known[key] = found

    def __len__(self) -> int:
        return len(self._known)

    def get(self, asked: str, removed: tuple[int, ...]) -> Verdict | None:
        """Return the verdict on a set, None where it is not known."""
        return self._known.get((asked, removed))

    def add(self, asked: str, removed: tuple[int, ...], verdict: Verdict) -> None:
        """Keep a verdict."""
        self._known[asked, removed] = verdict
        self._journal.add({"asked": asked, "removed": removed, "value": verdict.value, "passed": verdict.passed})
