"""What a healing is asked for: the loss, what trains, and for how long."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import ModelError, RectilinearError, nearest

LOSSES = ("kl", "mse")
TRAINS = ("repaired", "maps", "lora", "all")
SCHEDULES = ("cosine", "linear")
# Adam moves each weight by about the rate at each step, whatever the gradient's size. Weights of these models are
# about 0.03 to 0.1: hundreds of steps at 1e-4 move them by a few per cent where all agree, which is what healing
# needs. Adapters and maps start from (or pass through) zeros and may go further.
RATES = {"repaired": 1e-4, "all": 1e-4, "maps": 3e-4, "lora": 3e-4}
MINUTES = 20.0
CACHED_TOP_K = 64  # 516 bytes a token
READ = 1 << 20  # tokens of text where the budget is a time
HOLDOUT = 16  # windows


@dataclass(frozen=True)
class Recipe:
    """How to heal.

    loss: kl of logits or mse of streams. train: repaired, maps, lora or all. Of the budgets minutes (of training,
    evaluation not counted), steps and tokens (of training text read, again and again if need be) at most one is given;
    none is 20 minutes. rate: AdamW's highest learning rate, None for that of `RATES`; schedule: how it falls to 0 at
    the budget's end, cosine or linear, after rising over the first `warmup` of it. batch: windows in one forward pass
    (by default one: minutes on a CPU have room for few steps); accumulate: passes a step. top_k: of the teacher's
    logits, None for all of them (64 where they are cached). temperature: of both softmaxes. rank: of the adapters.
    holdout: windows at the text's end that only judge. read: tokens of text to read, None for what the budget needs
    (about a million where it is a time). bf16: mixed precision. checkpoints: folder for the Trainer's checkpoints, None
    for none; resume: go on from the last one there. report_to: loggers of transformers, by name. cache_teacher: folder
    for the teacher's top-k logits.
    """

    loss: str = "kl"
    train: str = "all"
    minutes: float | None = None
    steps: int | None = None
    tokens: int | None = None
    rate: float | None = None
    schedule: str = "cosine"
    warmup: float = 0.05
    window: int = 512
    protocol: str = "joined"
    batch: int = 1
    accumulate: int = 1
    top_k: int | None = None
    temperature: float = 1.0
    rank: int = 16
    holdout: int = HOLDOUT
    read: int | None = None
    bf16: bool = False
    checkpoints: Path | None = None
    resume: bool = False
    report_to: tuple[str, ...] = ()
    cache_teacher: Path | None = None
    layers_path: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise RectilinearError, one line, for a name that is not known, numbers out of range, or contradictions."""
        for value, known, what in (
            (self.loss, LOSSES, "a loss"),
            (self.train, TRAINS, "what to train"),
            (self.schedule, SCHEDULES, "a schedule"),
            (self.protocol, ("joined", "documents"), "a protocol"),
        ):
            if value not in known:
                raise ModelError(f"expected {what} of {', '.join(known)}, got {value!r}.{nearest(value, known)}")
        named = [f"{name} {value}" for name, value in self._budgets() if value is not None]
        if len(named) > 1:
            raise RectilinearError(f"expected one budget of minutes, steps and tokens, got {' and '.join(named)}")
        numbers = [*self._budgets(), ("lr", self.rate), ("temperature", self.temperature), ("top_k", self.top_k)]
        counts = [(name, getattr(self, name)) for name in ("batch", "accumulate", "rank", "holdout", "read")]
        for name, number in (*numbers, *counts):
            if number is not None and not 0 < number < math.inf:
                raise RectilinearError(f"expected {name} above 0, got {number}")
        if not 0 <= self.warmup < 1:
            raise RectilinearError(f"expected warm-up as a share of the budget from 0 to below 1, got {self.warmup}")
        self._check_together()

    def _check_together(self) -> None:
        if self.loss == "mse" and (self.cache_teacher, self.top_k, self.temperature) != (None, None, 1.0):
            raise RectilinearError(
                "expected the loss kl with a cache of teacher logits, top-k or a temperature, got mse: leave them out"
            )
        if self.resume and self.checkpoints is None:
            raise RectilinearError("expected a folder of checkpoints to resume from, got none: name it, --checkpoints")
        if "tensorboard" in self.report_to and self.checkpoints is None:
            raise RectilinearError("expected a folder for tensorboard's files, got none: name one, --checkpoints")

    def _budgets(self) -> list[tuple[str, float | None]]:
        return [("minutes", self.minutes), ("steps", self.steps), ("tokens", self.tokens)]

    @property
    def limit(self) -> tuple[str, float]:
        """Return the budget's kind, steps, tokens or seconds, and its size."""
        if self.steps is not None:
            return "steps", self.steps
        if self.tokens is not None:
            return "tokens", self.tokens
        return "seconds", 60 * (MINUTES if self.minutes is None else self.minutes)

    @property
    def step_tokens(self) -> int:
        """Tokens of one step, where windows are full."""
        return self.window * self.batch * self.accumulate

    @property
    def needed(self) -> int:
        """Tokens of text to read: those of the budget once over, and those held out."""
        if self.read is not None:
            return self.read
        kind, size = self.limit
        held = self.window * self.holdout
        return held + {"steps": int(size) * self.step_tokens, "tokens": int(size), "seconds": READ}[kind]

    @property
    def learning_rate(self) -> float:
        """AdamW's highest learning rate."""
        return RATES[self.train] if self.rate is None else self.rate

    @property
    def kept(self) -> int | None:
        """How many of the teacher's logits count, None for all."""
        return CACHED_TOP_K if self.cache_teacher is not None and self.top_k is None else self.top_k

    def facts(self) -> dict[str, Any]:
        """Return what determines the outcome, fit for JSON: places of files and loggers left out."""
        left_out = ("checkpoints", "resume", "report_to", "cache_teacher")
        named = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        kind, size = self.limit
        return {**named, "rate": self.learning_rate, "top_k": self.kept, "budget": {kind: size}}
