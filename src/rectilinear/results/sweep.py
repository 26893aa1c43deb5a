"""The result of a sweep: what a model is worth against the number of layers changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.plan import Loss
from rectilinear.results.shown import Drawn


@dataclass(frozen=True)
class Point:
    """One cut of a sweep.

    remove: layers, 0-based. loss: on the judging text. ratio: perplexity over the dense model's. parameters: with the
    linear maps that a repair puts in, tied ones once. prefill: tokens/s of a forward pass over the judging windows.
    """

    select: str
    repair: str
    remove: tuple[int, ...]
    loss: Loss
    ratio: float
    parameters: int
    prefill: float


@dataclass(frozen=True, repr=False)
class SweepResult(Drawn):
    """Curves over the number of layers changed, every selector with every repair; the first point is the dense model.

    provenance: model, calibration, options, versions, command, time, seconds. warnings: plain sentences.
    """

    provenance: dict[str, Any]
    layers: int
    dense: Point
    points: tuple[Point, ...]
    warnings: tuple[str, ...] = ()

    def curve(self, select: str, repair: str) -> list[Point]:
        """Return the dense model and the points of one selector and repair, by number of layers."""
        found = [p for p in self.points if (p.select, p.repair) == (select, repair)]
        return [self.dense, *sorted(found, key=lambda p: len(p.remove))]

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """The (selector, repair) pairs, in the order in which they were asked for."""
        return list(dict.fromkeys((p.select, p.repair) for p in self.points))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, and the fields."""
        return {"schema": SCHEMA, "kind": "sweep", **clean(self)}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write sweep.json, sweep.csv, the plot and a page to a folder at once or not at all; return its path."""
        from rectilinear.report.sweep import save_sweep  # the report knows the results, not the other way round

        return save_sweep(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> SweepResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version, another kind or missing keys."""
        if document.get("schema") != SCHEMA or document.get("kind") != "sweep":
            raise ResultError(f"expected a sweep of schema {SCHEMA}, got another document; sweep again")
        try:
            points = tuple(_point(item) for item in document["points"])
            notes = tuple(document["warnings"])
            return checked(
                cls(dict(document["provenance"]), document["layers"], _point(document["dense"]), points, notes)
            )
        except DAMAGED as error:
            raise ResultError(f"the sweep is damaged: {error}; sweep again") from error


def _point(item: dict[str, Any]) -> Point:
    return Point(**{**item, "remove": tuple(item["remove"]), "loss": Loss(**item["loss"])})
