"""What a fine-tuning is asked for: the method, the budget, and the text that both scans read."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from rectilinear.errors import RectilinearError, nearest

METHODS = ("full", "lora")
RATES = {"full": 2e-5, "lora": 2e-4}  # the usual ones for AdamW on models of this kind
EXAMPLES = 3000  # a third of BoolQ once, CB twelve times


@dataclass(frozen=True)
class FinetuneRecipe:
    """How to fine-tune, and how to measure before and after.

    method: full (all parameters) or lora (adapters of `rank` on attention and MLP, merged at the end); the head trains
    in both. Of the budgets steps (of the optimizer) and examples (trained on, again and again if need be) at most one
    is given; none is 3,000 examples. rate: AdamW's highest, None for that of `RATES`; it rises over the first `warmup`
    of the budget and falls to 0 along a cosine. batch: examples a pass; accumulate: passes a step; window: tokens of an
    example at most. bf16: mixed precision. tokens, scan_window, holdout, sink_multiple: of the scans, as for `scan`.
    """

    method: str = "full"
    steps: int | None = None
    examples: int | None = None
    rate: float | None = None
    warmup: float = 0.1
    batch: int = 8
    accumulate: int = 1
    window: int = 512
    rank: int = 16
    bf16: bool = False
    tokens: int | None = None
    scan_window: int = 512
    holdout: float = 0.25
    sink_multiple: float = 10.0
    batch_tokens: int = 4096
    layers_path: str | None = None

    def check(self) -> None:
        """Raise RectilinearError, one line, for a name that is not known, numbers out of range, or contradictions."""
        if self.method not in METHODS:
            known = ", ".join(METHODS)
            raise RectilinearError(f"expected a method of {known}, got {self.method!r}.{nearest(self.method, METHODS)}")
        if self.steps is not None and self.examples is not None:
            raise RectilinearError(
                f"expected one budget of steps and examples, got steps {self.steps} and examples {self.examples}"
            )
        names = ("steps", "examples", "rate", "batch", "accumulate", "window", "rank", "tokens")
        for name, number in ((name, getattr(self, name)) for name in names):
            if number is not None and not 0 < number < math.inf:
                raise RectilinearError(f"expected {'lr' if name == 'rate' else name} above 0, got {number}")
        if not 0 <= self.warmup < 1:
            raise RectilinearError(f"expected warm-up as a share of the budget from 0 to below 1, got {self.warmup}")
        if not 0 < self.holdout < 1:
            raise RectilinearError(
                f"expected a holdout between 0 and 1, got {self.holdout}: held-out text says whether a delta is noise"
            )

    @property
    def limit(self) -> int:
        """Steps of the optimizer."""
        if self.steps is not None:
            return self.steps
        return math.ceil((self.examples or EXAMPLES) / (self.batch * self.accumulate))

    @property
    def learning_rate(self) -> float:
        """AdamW's highest learning rate."""
        return RATES[self.method] if self.rate is None else self.rate

    def facts(self) -> dict[str, Any]:
        """Return what determines the outcome, fit for JSON."""
        named = dataclasses.asdict(self)
        del named["examples"]  # as steps
        return {**named, "steps": self.limit, "rate": self.learning_rate, "rank": self._rank}

    @property
    def _rank(self) -> int | None:
        return self.rank if self.method == "lora" else None
