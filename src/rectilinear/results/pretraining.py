"""The result of a pretraining."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.shown import Shown

RECIPE, DOCUMENT = "recipe.yaml", "pretrain.json"


@dataclass(frozen=True)
class TrainPoint:
    """Where a pretraining was: steps, tokens read, seconds, the model's own loss and the weighted penalty since before.

    Both losses are nats a token; the penalty is 0 where there is none.
    """

    step: int
    tokens: int
    seconds: float
    loss: float
    penalty: float


@dataclass(frozen=True)
class Checkpoint:
    """A model on the way: its folder's name, and nats a token and bits a byte on held-out documents."""

    folder: str
    step: int
    tokens: int
    loss: float
    bits_per_byte: float | None


@dataclass(frozen=True, repr=False)
class PretrainResult(Shown):
    """A model trained from scratch.

    recipe: as in recipe.yaml. parameters: tied ones once. vocab: tokens of the tokenizer. corpus: documents, heldout
    and dropped (duplicates) as numbers of documents, tokens and epochs (of the training text). checkpoints: those that
    were kept, the last one at the end. history: losses of training. sample: what the model writes by itself.
    provenance, warnings: as in a scan.
    """

    recipe: dict[str, Any]
    parameters: int
    vocab: int
    corpus: dict[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    history: tuple[TrainPoint, ...]
    sample: str
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of pretrain.json: schema, kind, and the fields."""
        return {"schema": SCHEMA, "kind": "pretrain", **clean(self)}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def check_out(out: Path, *, force: bool) -> None:
    """Raise ResultError where a run must not or cannot write to the folder `out`; with `force` it may replace one."""
    from rectilinear.report.folder import check_writable  # the report knows the results, not the other way round

    check_writable(out, force, RECIPE)
