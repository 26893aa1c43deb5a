"""A scan that may be killed: what it has gathered is kept on the way, and taken up again to the very same result."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rectilinear.errors import ResultError
from rectilinear.files import writing
from rectilinear.ops.state import load_state, save_state, state_facts

if TYPE_CHECKING:
    from rectilinear.ops.scan import Work

NAME = "after-{:08}-batches"
MOMENTS = "moments"  # of the fit part, where a scan keeps its moments


@dataclass
class Checkpoints:
    """States of a scan in a folder of its own, the last of them only. A state is whole or not there.

    every: how many `unit`s, minutes or tokens, lie between one state and the next at least.
    """

    folder: Path
    every: float = 10.0
    unit: Literal["minutes", "tokens"] = "minutes"
    tokens: int = 0  # that the last state has seen
    before: float = 0.0  # seconds that earlier runs took
    _started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def last(self) -> Path | None:
        """Return the folder of the last state, None where there is none."""
        return max(self.folder.glob("after-*"), default=None)

    @property
    def seconds(self) -> float:
        """Seconds that the scan has taken, in all its runs."""
        return self.before + time.monotonic() - self._started

    def take_up(self, work: Work) -> int:
        """Add the last state to what a scan gathers; return how many batches it has seen, 0 where there is none.

        Raises ResultError where it is damaged, or of another scan, naming what differs.
        """
        last = self.last()
        if last is None:
            return 0
        facts = state_facts(last)
        try:
            known, batches = dict(facts["same"]), int(facts["batches"])
            tokens, before = int(facts["tokens"]), float(facts["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise ResultError(f"the state in {last} is damaged: remove {self.folder} and start again") from error
        same = work.same()
        unlike = [name for name, value in same.items() if known.get(name) != value]
        if unlike:
            said = ", ".join(f"{name} {known.get(name)}, not {same[name]}" for name in unlike)
            raise ResultError(f"expected the scan that is kept in {self.folder}, which had {said}: remove that folder")
        load_state(last, work.gatherer, work.parts)
        if work.gatherer.keeper is not None and (last / MOMENTS).is_dir():
            work.gatherer.keeper.take_up(last / MOMENTS)
        self.tokens, self.before = tokens, before
        return batches

    def after(self, work: Work, batches: int, tokens: int) -> None:
        """Keep the state of a scan that has seen so many batches and tokens, if it is time to."""
        gone = tokens - self.tokens if self.unit == "tokens" else (time.monotonic() - self._last) / 60
        if gone < self.every:
            return
        target = self.folder / NAME.format(batches)
        part = self.folder / f".{target.name}"
        facts = {"same": work.same(), "batches": batches, "tokens": tokens, "seconds": self.seconds}
        try:
            shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
            with writing(target):
                save_state(part, work.gatherer, work.parts, facts=facts)
                if work.gatherer.keeper is not None:
                    work.gatherer.keeper.copy(part / MOMENTS)
                part.replace(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for old in self.folder.glob("after-*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
        self.tokens, self._last = tokens, time.monotonic()
