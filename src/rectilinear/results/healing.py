"""The result of a healing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.plan import Loss, Plan
from rectilinear.results.shown import Shown


@dataclass(frozen=True)
class HealPoint:
    """Where training was: steps done, tokens read, seconds spent, and the loss since the point before."""

    step: int
    tokens: int
    seconds: float
    loss: float


@dataclass(frozen=True, repr=False)
class HealResult(Shown):
    """A cut model after gradient training.

    plan: of the cut. recipe: loss, what trained, budget and the rest. trained, parameters: numbers that trained, and
    those of the model, tied ones once. dense, before, after: the uncut model, the cut one and the healed one on
    held-out windows, `holdout_tokens` of them predicted. history: the losses of training. provenance, warnings: as in
    a scan.
    """

    plan: Plan
    recipe: dict[str, Any]
    trained: int
    parameters: int
    dense: Loss
    before: Loss
    after: Loss
    holdout_tokens: int
    history: tuple[HealPoint, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Steps done."""
        return self.history[-1].step if self.history else 0

    @property
    def tokens(self) -> int:
        """Tokens read in training."""
        return self.history[-1].tokens if self.history else 0

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return self.history[-1].seconds if self.history else 0.0

    @property
    def recovered(self) -> float | None:
        """The share of the excess perplexity over the dense model that healing took away; None where there was none."""
        excess = self.before.perplexity - self.dense.perplexity
        return (self.before.perplexity - self.after.perplexity) / excess if excess > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of heal.json: schema, kind, and the fields."""
        body = clean(self)
        body["plan"] = self.plan.to_dict()
        spent = {"steps": self.steps, "tokens": self.tokens, "seconds": self.seconds}
        return {"schema": SCHEMA, "kind": "heal", **body, "spent": spent, "recovered": self.recovered}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(clean(self.to_dict()), indent=1, allow_nan=False)

    def save(self, out: str | Path, weights: Callable[[Path], None], *, force: bool = False) -> Path:
        """Write the checkpoint by `weights`, and beside it plan, document, model card and page, whole or not.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.healing import save_heal  # the report knows the results, not the other way round

        return save_heal(self, Path(out), weights, force=force)


def thinned(points: tuple[HealPoint, ...], most: int = 200) -> tuple[HealPoint, ...]:
    """Return at most `most` points, each with the mean loss of those it stands for, the last one kept."""
    if len(points) <= most:
        return points
    ends = [(i + 1) * len(points) // most for i in range(most)]
    groups = [points[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return tuple(dataclasses.replace(g[-1], loss=sum(p.loss for p in g) / len(g)) for g in groups)
