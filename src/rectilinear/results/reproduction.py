"""The result of reproducing the paper's figures and tables: what it says, what was measured, and a verdict a claim."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.finetuning import Spread

HOLDS, FAILS, UNTESTABLE = "holds", "does not hold", "not testable"


@dataclass(frozen=True)
class Row:
    """One number: `name` in rules, `label` for people, as published (None where it is not) and as measured.

    A spread's deviation is over seeds, or the standard error of a task's score.
    """

    name: str
    label: str
    paper: Spread | None
    measured: Spread | None


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: `HOLDS`, `FAILS` or `UNTESTABLE`; rules: the conditions that decided it, in words."""

    claim: str
    verdict: str
    reason: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class PlotCurve:
    """One curve of a figure: y over x, both of one length; None is a gap."""

    label: str
    x: tuple[float | None, ...]
    y: tuple[float | None, ...]
    dashed: bool = False


@dataclass(frozen=True)
class Plot:
    """One pair of axes of a figure; log: of the vertical axis."""

    title: str
    curves: tuple[PlotCurve, ...]
    log: bool = False


@dataclass(frozen=True)
class Run:
    """A command that a recipe rests on; folder: what it wrote, relative to that of the reproduction."""

    name: str
    command: str
    folder: str
    seconds: float | None


@dataclass(frozen=True)
class Reproduced:
    """One figure or table of the paper. name: fig1 and so on. xlabel, log: of the horizontal axis of its plots."""

    name: str
    title: str
    source: str
    verdicts: tuple[Verdict, ...]
    rows: tuple[Row, ...]
    plots: tuple[Plot, ...]
    xlabel: str
    log: bool
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReproductionResult:
    """Figures and tables of arXiv 2405.12250 made again at one scale, "smoke" or "paper".

    provenance: scale, versions, command, time.
    """

    parts: tuple[Reproduced, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> str:
        """The scale of all parts."""
        return str(self.provenance.get("scale"))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, and the fields."""
        return {"schema": SCHEMA, "kind": "reproduction", **clean(self)}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write reproduction.json, verdicts.csv, values.csv, plots and reproduction.html, whole or not at all.

        Returns the path. Raises ResultError where the folder exists and `force` is False, or cannot be written.
        """
        from rectilinear.report.reproduction import save_reproduction  # the report knows the results

        return save_reproduction(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ReproductionResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version, another kind or missing keys."""
        if document.get("schema") != SCHEMA or document.get("kind") != "reproduction":
            raise ResultError(
                f"expected a reproduction of schema {SCHEMA}, got kind {document.get('kind')!r} of schema "
                f"{document.get('schema')!r}; reproduce again with this version of rectilinear"
            )
        try:
            return checked(cls(tuple(map(_part, document["parts"])), dict(document["provenance"])))
        except DAMAGED as error:
            raise ResultError(f"the reproduction is damaged: {error}; reproduce again") from error


def _part(item: dict[str, Any]) -> Reproduced:
    own = {
        "verdicts": tuple(Verdict(**{**v, "rules": tuple(v["rules"])}) for v in item["verdicts"]),
        "rows": tuple(Row(r["name"], r["label"], _spread(r["paper"]), _spread(r["measured"])) for r in item["rows"]),
        "plots": tuple(Plot(p["title"], tuple(map(_curve, p["curves"])), p["log"]) for p in item["plots"]),
        "runs": tuple(Run(**run) for run in item["runs"]),
        "notes": tuple(item["notes"]),
    }
    return Reproduced(**{**item, **own})


def _spread(item: dict[str, Any] | None) -> Spread | None:
    return None if item is None else Spread(**item)


def _curve(item: dict[str, Any]) -> PlotCurve:
    return PlotCurve(item["label"], tuple(item["x"]), tuple(item["y"]), item["dashed"])
