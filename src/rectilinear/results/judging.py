"""The result of letting a language model grade completions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.shown import Shown

GRADES = ("grammar", "creativity", "consistency", "plot")  # from 1 to 10
LEAST, MOST = 1, 10


@dataclass(frozen=True)
class Completion:
    """What a model made of a prompt: `prompt` and `sample` are numbers from 0, `start` and `text` the two halves."""

    prompt: int
    sample: int
    start: str
    text: str


@dataclass(frozen=True)
class Graded:
    """One grading of one completion: by which judge, the how manieth time, and the grades, None where it gave none."""

    prompt: int
    sample: int
    judge: str
    repeat: int
    grades: dict[str, int] | None
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Mean:
    """A mean grade and its 95 % interval over prompts; None where nothing was graded."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """How two gradings of the same completions agree, over `pairs` of grades.

    within_one: share of pairs at most one point apart. kappa: Cohen's, weighted by the squared distance; None where
    there was nothing to disagree about.
    """

    pairs: int
    within_one: float | None
    kappa: float | None


@dataclass(frozen=True, repr=False)
class JudgeResult(Shown):
    """Grades of a model's completions, after Eldan and Li, "TinyStories" (arXiv 2305.07759).

    means: by grade, and `mean` over the four. agreement: by grade, empty with a single grading. completions, graded:
    all of them. provenance, warnings: as in a scan.
    """

    means: dict[str, Mean]
    agreement: dict[str, Agreement]
    completions: tuple[Completion, ...]
    graded: tuple[Graded, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of judge.json: schema, kind, and the fields."""
        return {"schema": SCHEMA, "kind": "judge", **clean(self)}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write judge.json, judge.csv and judge.html to the folder `out`, at once or not at all; return it.

        Raises ResultError where it exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.judging import save_judging  # the report knows the results, not the other way round

        return save_judging(self, Path(out), force=force)
