"""The result of linear probes on every position of the stream, of one model or several."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean, mean
from rectilinear.results.shown import Drawn


@dataclass(frozen=True)
class ProbePoint:
    """One position of the stream (0: the embedding, L: the last layer's raw output), and what its probe is worth.

    accuracy: on test examples, low and high its 95 % interval: Wilson's, or by bootstrap over groups of examples where
    they are not independent. train_accuracy: on the examples that it learnt from. strength: the C of the logistic
    regression (the inverse of its penalty), chosen by cross-validation.
    """

    position: int
    accuracy: float
    low: float | None
    high: float | None
    train_accuracy: float
    strength: float


@dataclass(frozen=True)
class ProbeCurve:
    """The probes of one model.

    facts: model, revision, fingerprint, model_type, dtype, device. truncated: examples cut to the window. gap: mean
    accuracy over positions minus that of the first model, with its 95 % interval, the same test examples drawn for
    both; None for the first model itself.
    """

    name: str
    facts: dict[str, Any]
    points: tuple[ProbePoint, ...]
    truncated: int = 0
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None

    @property
    def best(self) -> ProbePoint:
        """The most accurate position, the first of them where several are."""
        return max(self.points, key=lambda point: point.accuracy)

    @property
    def mean(self) -> float:
        """Mean accuracy over positions."""
        value = mean(point.accuracy for point in self.points)
        assert value is not None
        return value


@dataclass(frozen=True, repr=False)
class ProbeResult(Drawn):
    """Linear probes for one task.

    task: name, source, labels, train, test (numbers of examples), test_groups (those that are independent). majority:
    accuracy of always saying the class that is more frequent in training. provenance: pooling, window, folds, seed,
    versions, command, time, seconds. warnings: plain sentences.
    """

    task: dict[str, Any]
    majority: float
    curves: tuple[ProbeCurve, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, and the fields, with each curve's best position and mean."""
        body = clean(self)
        for document, curve in zip(body["curves"], self.curves, strict=True):
            document |= {"best": curve.best.position, "mean": curve.mean}
        return {"schema": SCHEMA, "kind": "probe", **body}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write probe.json, layers.csv, the plot and report.html, whole or not at all; return the path.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.probe import save_probe  # the report knows the results, not the other way round

        return save_probe(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ProbeResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version or missing keys."""
        found = document.get("schema")
        if found != SCHEMA or document.get("kind") != "probe":
            raise ResultError(
                f"expected probes of schema {SCHEMA}, got kind {document.get('kind')!r} of schema {found!r}; "
                "make them again with this version of rectilinear"
            )
        try:
            curves = tuple(
                ProbeCurve(
                    item["name"],
                    dict(item["facts"]),
                    tuple(ProbePoint(**point) for point in item["points"]),
                    *(item[name] for name in ("truncated", "gap", "gap_low", "gap_high")),
                )
                for item in document["curves"]
            )
            if not all(curve.points for curve in curves):
                raise ValueError("a curve without points")
            task = {**document["task"], "labels": tuple(document["task"]["labels"])}
            return checked(
                cls(task, document["majority"], curves, dict(document["provenance"]), tuple(document["warnings"]))
            )
        except DAMAGED as error:
            raise ResultError(f"the probes are damaged: {error}; make them again") from error
