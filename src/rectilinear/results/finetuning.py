"""The result of fine-tuning a model several times, and what that did to the linearity of its layers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.delta import KINDS, Change, DeltaResult
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.healing import HealPoint


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and its standard deviation (n - 1 below the sum); None where there is nothing to tell it by."""

    mean: float | None
    std: float | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Return the spread of the numbers among `values`."""
        known = [value for value in values if value is not None]
        return cls(statistics.fmean(known) if known else None, statistics.stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True)
class SeedResult:
    """One fine-tuning: accuracy on the test examples before (by a head of random numbers) and after, losses, delta."""

    seed: int
    accuracy_before: float
    accuracy_after: float
    history: tuple[HealPoint, ...]
    delta: DeltaResult


@dataclass(frozen=True)
class FinetuneResult:
    """A model fine-tuned on one task, once a seed, scanned before and after on the same text.

    task: name, source, labels (None for pairs), train, test (numbers of examples), majority (None for pairs). recipe:
    method, steps, rate and the rest. trained, parameters: numbers that trained, adapters' own counted, and those of the
    model. provenance, warnings: as in a scan.
    """

    task: dict[str, Any]
    recipe: dict[str, Any]
    trained: int
    parameters: int
    seeds: tuple[SeedResult, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def before(self) -> Spread:
        """Accuracy before, over seeds."""
        return Spread.of([seed.accuracy_before for seed in self.seeds])

    @property
    def after(self) -> Spread:
        """Accuracy after, over seeds."""
        return Spread.of([seed.accuracy_after for seed in self.seeds])

    def change(self, name: str, kind: str) -> Spread:
        """Return the change of the mean over layers of "score" or "increment", over seeds (Table 1 of the paper)."""
        return self._over(lambda delta: getattr(delta.mean[name], kind))

    def layer_changes(self, name: str, kind: str) -> tuple[Spread, ...]:
        """Return the change in every layer, over seeds."""

        def at(layer: int) -> Callable[[DeltaResult], Change]:
            return lambda delta: getattr(getattr(delta.layers[layer], name), kind)

        return tuple(self._over(at(layer)) for layer in range(len(self.seeds[0].delta.layers)))

    def moved(self, name: str, kind: str) -> int:
        """Return in how many seeds the documents tell the change of the mean from noise."""
        return sum(getattr(seed.delta.mean[name], kind).moved for seed in self.seeds)

    def _over(self, pick: Callable[[DeltaResult], Change]) -> Spread:
        return Spread.of([pick(seed.delta).delta for seed in self.seeds])

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, a summary over seeds, and the fields."""
        summary = {name: {kind: self.change(name, kind) for kind in KINDS} for name in ("score", "increment")}
        body = clean(self)
        body["seeds"] = [
            {**document, "delta": seed.delta.to_dict()}
            for document, seed in zip(body["seeds"], self.seeds, strict=True)
        ]
        return {
            "schema": SCHEMA,
            "kind": "finetune",
            "summary": clean({**summary, "accuracy_before": self.before, "accuracy_after": self.after}),
            **body,
        }

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write finetune.json, layers.csv, the plot and report.html, whole or not at all; return the path.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.finetuning import save_finetune  # the report knows the results, not the other way round

        return save_finetune(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> FinetuneResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version or missing keys."""
        found = document.get("schema")
        if found != SCHEMA or document.get("kind") != "finetune":
            raise ResultError(
                f"expected a fine-tuning of schema {SCHEMA}, got kind {document.get('kind')!r} of schema {found!r}; "
                "make it again with this version of rectilinear"
            )
        try:
            result = cls(
                dict(document["task"]),
                dict(document["recipe"]),
                document["trained"],
                document["parameters"],
                tuple(
                    SeedResult(
                        item["seed"],
                        item["accuracy_before"],
                        item["accuracy_after"],
                        tuple(HealPoint(**point) for point in item["history"]),
                        DeltaResult.from_dict(item["delta"]),
                    )
                    for item in document["seeds"]
                ),
                dict(document["provenance"]),
                tuple(document["warnings"]),
            )
            if len({len(seed.delta.layers) for seed in result.seeds}) != 1:
                raise ValueError("expected seeds of one model")
            return checked(result)
        except DAMAGED as error:
            raise ResultError(f"the fine-tuning is damaged: {error}; make it again") from error
