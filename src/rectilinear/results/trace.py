"""The result of a trace: how linear the layers of a model were at each checkpoint of its training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.scan import ScanResult, Score
from rectilinear.results.shown import Drawn


@dataclass(frozen=True)
class LayerScores:
    """What a trace keeps of one layer (0-based) of a scan; sinks: the number of sink tokens."""

    layer: int
    score: Score
    increment: Score
    norm_ratio: float
    cosine: float
    sinks: int


@dataclass(frozen=True)
class TracePoint:
    """One checkpoint: its training step, its name, and its scan in short.

    score, increment: means over layers; the interval of the held-out one is over documents, which all layers share, and
    that of the ordinary one is not known. norm_ratio, cosine: means over layers. warnings: of the scan. weights: the
    SHA-256 of configuration and weights, by which a trace that goes on knows what has changed; None where they were in
    no local folder, and in traces of earlier versions.
    """

    step: int
    name: str
    revision: str | None
    fingerprint: str
    time: str
    score: Score
    increment: Score
    norm_ratio: float
    cosine: float
    layers: tuple[LayerScores, ...]
    warnings: tuple[str, ...] = ()
    weights: str | None = None


@dataclass(frozen=True, repr=False)
class TraceResult(Drawn):
    """Scans of the checkpoints of one training on the same windows, in the order of their steps.

    provenance: model, steps (of all checkpoints, those not scanned yet too), text, windows (fingerprint of the tokens),
    tokens, tokens_fit, tokens_heldout, tokens_per_d, documents, unit, window, holdout, seed, sink_multiple, dtype,
    layers_path, d, versions, command, time.
    """

    provenance: dict[str, Any]
    points: tuple[TracePoint, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the scans, once each, with the steps they hold for where it is not all."""
        steps: dict[str, list[int]] = {}
        for point in self.points:
            for note in point.warnings:
                steps.setdefault(note, []).append(point.step)
        notes = [
            note if len(of) == len(self.points) else f"Step {', '.join(f'{step:,}' for step in of)}: {note}"
            for note, of in steps.items()
        ]
        missing = len(self.provenance["steps"]) - len(self.points)
        if missing > 0:
            notes.append(f"{missing} of {len(self.provenance['steps'])} checkpoints are not scanned yet: use --resume.")
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, provenance, warnings, checkpoints."""
        return clean(
            {
                "schema": SCHEMA,
                "kind": "trace",
                "provenance": self.provenance,
                "warnings": self.warnings,
                "checkpoints": self.points,
            }
        )

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write trace.json, layers.csv, plots and trace.html to a folder at once or not at all; return its path.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.trace import save_trace  # the report knows the results, not the other way round

        return save_trace(self, Path(out), force=force)

    def keep(self, scan: ScanResult, out: str | Path, *, fresh: bool, force: bool = False) -> None:
        """Write the folder of a scan that belongs to this trace, whole, into the trace's own, then trace.json.

        `fresh` for the first scan of a new trace: `out` is made then, or replaced with `force`. Raises ResultError as
        `save` does.
        """
        from rectilinear.report.trace import keep_scan

        keep_scan(self, scan, Path(out), fresh=fresh, force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> TraceResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version, another kind or missing keys."""
        if document.get("schema") != SCHEMA or document.get("kind") != "trace":
            raise ResultError(
                f"expected a trace of schema {SCHEMA}, got kind {document.get('kind')!r} of schema "
                f"{document.get('schema')!r}; trace again with this version of rectilinear"
            )
        try:
            provenance = dict(document["provenance"])
            if not isinstance(provenance["steps"], list):
                raise TypeError("provenance.steps is of the wrong kind")
            return checked(cls(provenance, tuple(map(_point, document["checkpoints"]))))
        except DAMAGED as error:
            raise ResultError(f"the trace is damaged: {error}; trace again") from error


def _point(item: dict[str, Any]) -> TracePoint:
    layers = tuple(LayerScores(**{**layer, **_scores(layer)}) for layer in item["layers"])
    return TracePoint(**{**item, **_scores(item), "layers": layers, "warnings": tuple(item["warnings"])})


def _scores(item: dict[str, Any]) -> dict[str, Score]:
    return {kind: Score(**item[kind]) for kind in ("score", "increment")}
