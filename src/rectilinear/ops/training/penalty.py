"""The penalty that a training adds to its loss: what it is, which layers, how heavy and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rectilinear.core.penalties import KINDS, row_sums
from rectilinear.errors import ModelError, RectilinearError, nearest

SCHEDULES = ("constant", "warmup", "decay")
RAMP = 0.1  # of the run, over which a warm-up rises


@dataclass(frozen=True)
class Penalty:
    """weight * (mean over tokens of the sum over layers of a distance between consecutive stream positions).

    kind: cosine or mse (arXiv 2405.12250, section 4). weight: the paper's lambda; it takes 0.5 for cosine, 0.5 and 2.0
    for mse. layers: those that count, None for all. schedule (ours): constant as in the paper; warmup, from 0 over the
    first tenth of the run; decay, linearly to 0 at its end.

    Raises RectilinearError for a kind or schedule that is not known and a weight below 0 or not finite.
    """

    kind: str = "cosine"
    weight: float = 0.5
    layers: tuple[int, ...] | None = None
    schedule: str = "constant"

    def __post_init__(self) -> None:
        for value, known, what in ((self.kind, KINDS, "a penalty"), (self.schedule, SCHEDULES, "a schedule")):
            if value not in known:
                raise RectilinearError(f"expected {what} of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
        if not 0 <= self.weight < math.inf:
            raise RectilinearError(f"expected a penalty weight of 0 or above, got {self.weight}")
        if self.layers == ():
            raise RectilinearError("expected a layer or more for the penalty, got none: leave layers out for all")

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

    def rows(self, positions: Sequence[Tensor]) -> Tensor:
        """Return each token's distance [b, w], unweighted, summed over layers, from positions 0..L [b, w, d].

        Raises ModelError where they carry no gradient.
        """
        if not positions[-1].requires_grad:
            raise ModelError(
                "expected a stream with gradients for the penalty, got one without: with gradient checkpointing give "
                "gradient_checkpointing_kwargs={'use_reentrant': False}, and let the layers train"
            )
        return row_sums(positions, self.kind, self.layers)
