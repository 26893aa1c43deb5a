"""The penalty that a training adds to its loss: what it is, which layers, how heavy and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rectilinear.core.penalties import cosine_penalty, increment_penalty, mse_penalty
from rectilinear.errors import ModelError, RectilinearError, nearest

KINDS = {"cosine": cosine_penalty, "mse": mse_penalty}
INCREMENT = "increment"
SCHEDULES = ("constant", "warmup", "decay")
RAMP = 0.1  # of the run, over which a warm-up rises


@dataclass(frozen=True)
class Penalty:
    """weight * (sum over layers of a distance between the stream before and after, its mean over tokens).

    kind: cosine or mse (arXiv 2405.12250, section 4), or increment (ours): the squared distance of each layer's
    increment score, on the tokens of one forward pass, from `target`. weight: the paper's lambda; it takes 0.5 for
    cosine, 0.5 and 2.0 for mse. layers: those that count, None for all. schedule (ours): constant as in the paper;
    warmup, from 0 over the first tenth of the run; decay, linearly to 0 at its end.

    Raises RectilinearError for a kind or schedule that is not known, a weight below 0 or not finite, and a target that
    is missing, out of place or not in [0, 1].
    """

    kind: str = "cosine"
    weight: float = 0.5
    layers: tuple[int, ...] | None = None
    schedule: str = "constant"
    target: float | None = None

    def __post_init__(self) -> None:
        kinds = (*KINDS, INCREMENT)
        for value, known, what in ((self.kind, kinds, "a penalty"), (self.schedule, SCHEDULES, "a schedule")):
            if value not in known:
                raise RectilinearError(f"expected {what} of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
        if not 0 <= self.weight < math.inf:
            raise RectilinearError(f"expected a penalty weight of 0 or above, got {self.weight}")
        if self.layers == ():
            raise RectilinearError("expected a layer or more for the penalty, got none: leave layers out for all")
        if self.kind == INCREMENT and not (self.target is not None and 0 <= self.target <= 1):
            raise RectilinearError(f"expected a target from 0 to 1 for the penalty increment, got {self.target}")
        if self.kind != INCREMENT and self.target is not None:
            raise RectilinearError(f"expected a target for the penalty increment only, got one for {self.kind}")

    def factor(self, share: float) -> float:
        """Return the weight when a share of the run is done."""
        if self.schedule == "warmup":
            return self.weight * min(1.0, share / RAMP)
        return self.weight * (1 - share) if self.schedule == "decay" else self.weight

    def check_layers(self, count: int) -> None:
        """Raise ModelError where a layer is not among those of a model."""
        strange = [i for i in self.layers or () if not 0 <= i < count]
        if strange:
            raise ModelError(f"expected layers of the penalty from 0 to {count - 1}, got {strange[0]}")

    def __call__(self, positions: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Return the unweighted penalty, a scalar with a gradient, from positions 0..L of the stream, each [b, w, d].

        mask [b, w]: 1 at real tokens, None where all are. Raises ModelError where the positions carry no gradient,
        RectilinearError where there are too few tokens for an increment score.
        """
        if not positions[-1].requires_grad:
            raise ModelError(
                "expected a stream with a gradient for the penalty, got one without: let a layer train, or leave it out"
            )
        if self.target is not None:
            return increment_penalty(positions, mask, target=self.target, layers=self.layers)
        return KINDS[self.kind](positions, mask, layers=self.layers)
