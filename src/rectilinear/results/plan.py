"""A plan: which layers go and how that is made up for, as data; and the result of carrying it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.reading import read_json
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.shown import Shown


@dataclass(frozen=True)
class Plan:
    """What to cut from a model and how; with the same model and text it gives the same weights.

    remove: layers of the model before the cut, 0-based. layers: how many it has. select, repair: names as registered;
    select is "given" where the layers were. refit_after: the kept layers above the first cut are refitted as well.
    ridge: towards the old weights, a multiple of the features' mean square. rank: of affine maps, None for full.
    fingerprint: of the model before the cut. calibration: text, tokens, window, kept_tokens of them that no repair was
    fitted on, and the judge's own judge_tokens, the same unless it read another text (judge_apart).
    """

    remove: tuple[int, ...]
    layers: int
    select: str
    repair: str
    refit_after: bool
    ridge: float
    model: str
    fingerprint: str
    calibration: dict[str, Any]
    rank: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of plan.json."""
        return {"schema": SCHEMA, "kind": "plan", **clean(self)}

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    @classmethod
    def from_dict(cls, document: Any) -> Plan:
        """Rebuild from `to_dict`; raises ResultError for anything else."""
        if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("kind") != "plan":
            raise ResultError(
                f"expected a plan of schema {SCHEMA}, got another document; make it with rectilinear prune"
            )
        values = {k: v for k, v in document.items() if k not in ("schema", "kind")}
        try:
            return checked(cls(**{**values, "remove": tuple(values["remove"])}))
        except DAMAGED as error:
            raise ResultError(f"the plan is damaged: {error}; make it again") from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read plan.json, or the folder that holds it; raises ResultError where that cannot be done."""
        file = Path(path) / "plan.json" if Path(path).is_dir() else Path(path)
        return cls.from_dict(read_json(file, "make a plan with rectilinear prune"))


@dataclass(frozen=True)
class Loss:
    """What a model is worth on the judging windows: perplexity, and KL(dense || model) in nats per token."""

    perplexity: float
    kl: float


@dataclass(frozen=True, repr=False)
class PruneResult(Shown):
    """A plan carried out.

    dense, cut: before and after, on calibration windows that no repair was fitted on (but which a selector may have
    looked at). parameters_dense, parameters: tied ones once. passes: what it cost, in forward passes of the dense
    model over the calibration text, the head not counted. tried: sets of layers tried by the selector, with the
    verdict on each. provenance, warnings: as in a scan.
    """

    plan: Plan
    dense: Loss
    cut: Loss
    parameters_dense: int
    parameters: int
    passes: float
    tried: tuple[tuple[tuple[int, ...], float], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, and the fields."""
        body = clean(self)
        body["plan"] = self.plan.to_dict()
        body["tried"] = [{"layers": list(layers), "verdict": verdict} for layers, verdict in self.tried]
        return {"schema": SCHEMA, "kind": "prune", **body}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(clean(self.to_dict()), indent=1, allow_nan=False)

    def save(self, out: str | Path, weights: Callable[[Path], None], *, force: bool = False) -> Path:
        """Write the checkpoint by `weights`, and beside it plan, document, model card and page, whole or not.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.pruning import save_prune  # the report knows the results, not the other way round

        return save_prune(self, Path(out), weights, force=force)
