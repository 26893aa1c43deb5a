"""The result of comparing two scans of the same text: what changed in each layer, and whether it is more than noise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.shown import Drawn

KINDS = ("paper", "heldout", "ordinary")


@dataclass(frozen=True)
class Change:
    """A score before and after, and the difference; None where one of them is undefined.

    low, high: 95 % interval of the difference, by bootstrap over held-out documents, the same ones drawn for both
    models; None for the in-sample score, which no unseen document judges.
    """

    before: float | None
    after: float | None
    delta: float | None
    low: float | None = None
    high: float | None = None

    @property
    def moved(self) -> bool:
        """Whether the interval excludes no change."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Changes:
    """One layer's (or the mean) change, three ways, as in `Score`."""

    paper: Change
    heldout: Change
    ordinary: Change


@dataclass(frozen=True)
class LayerDelta:
    """What changed in one layer (0-based)."""

    layer: int
    score: Changes
    increment: Changes


@dataclass(frozen=True, repr=False)
class DeltaResult(Drawn):
    """Two scans of the same windows, the second minus the first.

    before, after: of each scan model, revision, fingerprint, model_type, dtype, device. mean: changes of the means over
    layers, of "score" and "increment"; their intervals are of the means themselves. provenance: what both scans share
    (text, tokens, window, holdout ...), seed, versions, command, time. warnings: plain sentences.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    provenance: dict[str, Any]
    layers: tuple[LayerDelta, ...]
    mean: dict[str, Changes]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, and the fields."""
        return {"schema": SCHEMA, "kind": "delta", **clean(self)}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write delta.json, layers.csv, plots and report.html, whole or not at all; return the path.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.delta import save_delta  # the report knows the results, not the other way round

        return save_delta(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> DeltaResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version or missing keys."""
        found = document.get("schema")
        if found != SCHEMA or document.get("kind") != "delta":
            raise ResultError(
                f"expected a delta of schema {SCHEMA}, got kind {document.get('kind')!r} of schema {found!r}; "
                "make it again with this version of rectilinear"
            )
        try:
            result = cls(
                dict(document["before"]),
                dict(document["after"]),
                dict(document["provenance"]),
                tuple(
                    LayerDelta(item["layer"], _changes(item["score"]), _changes(item["increment"]))
                    for item in document["layers"]
                ),
                {name: _changes(document["mean"][name]) for name in ("score", "increment")},
                tuple(document["warnings"]),
            )
            return checked(result)
        except DAMAGED as error:
            raise ResultError(f"the delta is damaged: {error}; make it again") from error


def _changes(item: dict[str, Any]) -> Changes:
    return Changes(*(Change(**item[kind]) for kind in KINDS))
