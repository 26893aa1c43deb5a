"""What has been graded so far: a judge costs money, so nothing is asked twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rectilinear.ops.journal import Journal
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.judging import Completion, Graded


class Grades:
    """Completions and gradings, in a `Journal` at `path`, whose errors these are."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.completions: list[Completion] = []
        self.graded: list[Graded] = []
        self._journal = Journal(path, settings, "what is graded")
        for entry in self._journal.entries:
            try:
                if "completion" in entry:
                    self.completions.append(checked(Completion(**entry["completion"])))
                else:
                    self.graded.append(checked(Graded(**entry["graded"])))
            except DAMAGED as error:
                raise self._journal.damaged(error) from error

    def add(self, entry: Completion | Graded) -> None:
        """Keep a completion or a grading."""
        (self.completions if isinstance(entry, Completion) else self.graded).append(entry)  # type: ignore[arg-type]
        self._journal.add({type(entry).__name__.lower(): dataclasses.asdict(entry)})

    def remove(self) -> None:
        """Take the file away: all is done."""
        self._journal.remove()
