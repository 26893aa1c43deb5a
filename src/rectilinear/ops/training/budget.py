"""How much of a budget is spent, the learning rate that goes with it, and the callback that keeps the books."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_callback import ExportableState

from rectilinear.errors import NonFiniteError, ResultError
from rectilinear.ops.leaving import Leaving
from rectilinear.reading import read_json
from rectilinear.results import HealPoint
from rectilinear.results.checked import DAMAGED, checked

FLOOR = 0.1  # of the rate, where the warm-up starts: a first step at 0 would be none


def rate(share: float, schedule: str, warmup: float) -> float:
    """Return the factor on the learning rate when a share of the budget is spent: up to 1, then down to 0."""
    if share < warmup:
        return FLOOR + (1 - FLOOR) * share / warmup
    rest = min(1.0, (share - warmup) / (1 - warmup))
    return 1 - rest if schedule == "linear" else (1 + math.cos(math.pi * rest)) / 2


class Books(TrainerCallback, ExportableState):
    """Keeps steps, tokens, seconds and losses; stops at the budget's end, asks for checkpoints on the way.

    limit: kind (steps, tokens or seconds) and size. facts: what a checkpoint was made with, kept in it. marks: shares
    of the budget, rising, after each of which a checkpoint is asked for; where there are any, one is asked for as well
    when a SIGTERM is waiting (`leaving`), which is let through then. Seconds are of training only, and go on counting
    where a resumed run had left off.
    """

    def __init__(
        self,
        limit: tuple[str, float],
        facts: dict[str, Any],
        on_point: Callable[[HealPoint, float], None],
        marks: Sequence[float] = (),
    ) -> None:
        self.kind, self.size = limit
        self.facts = facts
        self.on_point = on_point
        self.marks = marks
        self.leaving = Leaving()
        self.steps = self.tokens = 0
        self.before = 0.0
        self.points: list[HealPoint] = []
        self._started: float | None = None
        self._passed = 0

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far."""
        return self.before + (0.0 if self._started is None else time.perf_counter() - self._started)

    @property
    def share(self) -> float:
        """Return the share of the budget that is spent, at most 1."""
        return min(1.0, {"steps": self.steps, "tokens": self.tokens, "seconds": self.seconds}[self.kind] / self.size)

    @property
    def mark(self) -> float:
        """Return the last mark that a step has passed, 0 before the first."""
        return self.marks[self._passed - 1] if self._passed else 0.0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        points = [[p.step, p.tokens, p.seconds, p.loss] for p in self.points]
        return {"args": self.facts, "attributes": {"seconds": self.seconds, "points": points}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock, from where a checkpoint left off."""
        kept = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.before, self._started = kept["seconds"] if state.global_step else 0.0, time.perf_counter()
        self.points = [HealPoint(*values) for values in kept["points"]]
        self.steps, self.tokens = state.global_step, state.num_input_tokens_seen
        self._passed = bisect_right(self.marks, self.share)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step, before the schedule asks how much is spent."""
        self.steps, self.tokens = state.global_step + 1, state.num_input_tokens_seen

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop where the budget is spent; ask for a checkpoint each time another mark is passed."""
        share = self.share  # read once: a clock goes on
        passed = bisect_right(self.marks, share)
        if share >= 1:
            control.should_training_stop = True
        control.should_save = passed > self._passed or (bool(self.marks) and (share >= 1 or self.leaving.asked))
        self._passed = passed

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Keep the loss; raises NonFiniteError where it is no number."""
        logs = given["logs"]
        if "loss" not in logs:  # the last one is a summary
            return
        point = HealPoint(state.global_step, state.num_input_tokens_seen, round(self.seconds, 3), logs["loss"])
        if not math.isfinite(point.loss):
            raise NonFiniteError(
                f"the loss was NaN or infinite at step {point.step}: use a lower --lr, or leave --bf16 out"
            )
        self.points.append(point)
        self.on_point(point, self.share)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the one file of a checkpoint that is a pickle of code's own objects and that nothing reads."""
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        if self.leaving.asked:
            self.leaving.go()

    def going_on(self) -> AbstractContextManager[None]:
        """Let a SIGTERM within wait for a checkpoint, where there are any."""
        return self.leaving.put_off() if self.marks else nullcontext()


def made_with(checkpoint: Path, remedy: str) -> dict[str, Any]:
    """Return the facts that the books in a checkpoint hold; raises ResultError, with a remedy, for damaged books."""
    file = checkpoint / TRAINER_STATE_NAME
    state = read_json(file, remedy)
    try:
        books = state["stateful_callbacks"][Books.__name__]
        facts, kept = dict(books["args"]), books["attributes"]
        for values in [(0, 0, kept["seconds"], 0), *kept["points"]]:
            checked(HealPoint(*values))
    except DAMAGED as error:
        raise ResultError(f"cannot read {file}: expected the books of a training, got {error!r}; {remedy}") from error
    return facts
