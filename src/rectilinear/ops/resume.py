"""A scan that may be killed: what it has gathered is kept on the way, and taken up again to the very same result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from rectilinear.digests import FILES
from rectilinear.errors import ResultError
from rectilinear.files import writing
from rectilinear.ops.leaving import Leaving
from rectilinear.ops.state import load_state, save_state, state_facts
from rectilinear.results.checked import DAMAGED

if TYPE_CHECKING:
    from rectilinear.ops.passes import Pass
    from rectilinear.ops.ranks import Ranks
    from rectilinear.ops.scan import Work

NAME = "after-{:08}-batches"
MOMENTS = "moments"  # of the fit part, where a scan keeps its moments
GO_ON, KEEP, KEEP_AND_LEAVE = range(3)  # what is due after a batch


@dataclass
class Checkpoints:
    """States of a scan in a folder of its own, the last of them only. A state is whole or not there.

    A SIGTERM waits for the end of the batch and its state.

    every: how many `unit`s, minutes or tokens of a process, lie between one state and the next at least. share: which
    share of the scan the states are of, by names that say so. ranks: the processes that keep their states together, in
    one folder that all of them see.
    """

    folder: Path
    every: float = 10.0
    unit: Literal["minutes", "tokens"] = "minutes"
    tokens: int = 0  # that the last state has seen
    before: float = 0.0  # seconds that earlier runs took
    share: dict[str, Any] = field(default_factory=dict)
    ranks: Ranks | None = None
    leaving: Leaving = field(default_factory=Leaving)
    _started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def last(self) -> Path | None:
        """Return the folder of the last state, None where there is none."""
        return max(self.folder.glob("after-*"), default=None)

    def there(self) -> bool:
        """Tell whether a state is kept, of this scan or, in a folder of its name, of one of several."""
        return any(self.folder.glob("**/after-*"))

    @property
    def seconds(self) -> float:
        """Seconds that the scan has taken, in all its runs."""
        return self.before + time.monotonic() - self._started

    def take_up(self, work: Work) -> int:
        """Add the last state to what a scan gathers; return how many batches it has seen, 0 where there is none.

        Raises ResultError where it is damaged, or of another scan, naming what differs.
        """
        self._started = self._last = time.monotonic()
        last = self.last() if self.ranks is None else self.ranks.from_first(self.last())
        if last is None:
            return 0
        last = self._own(last)
        remedy = f"remove {self.folder} and start again"
        facts = state_facts(last, remedy)
        try:
            known, batches = dict(facts["same"]), int(facts["batches"])
            tokens, before, moments = int(facts["tokens"]), float(facts["seconds"]), _moments_files(facts)
        except DAMAGED as error:
            raise ResultError(f"the state in {last} is damaged: {remedy}") from error
        same = self._same(work)
        unlike = [name for name in {**same, **known} if known.get(name) != same.get(name)]
        if unlike:
            said = ", ".join(f"{name} {known.get(name)}, not {same.get(name)}" for name in unlike)
            raise ResultError(f"expected the scan that is kept in {self.folder}, which had {said}: remove that folder")
        load_state(last, work.gatherer, work.parts, remedy)
        if work.gatherer.keeper is not None and (last / MOMENTS).is_dir():
            work.gatherer.keeper.take_up(last / MOMENTS, moments, remedy)
        self.tokens, self.before = tokens, before
        return batches

    def after(self, work: Work, batches: int, tokens: int) -> None:
        """Keep the state of a scan that has seen so many batches and tokens, if it is time to or time to leave."""
        due = self._due(tokens)
        if due == GO_ON:
            return
        target = self.folder / NAME.format(batches)
        part = self.folder / f".{target.name}"
        facts = {"same": self._same(work), "batches": batches, "tokens": tokens, "seconds": self.seconds}
        with self._replacing(part, target):
            own, keeper = self._own(part), work.gatherer.keeper
            own.mkdir(parents=True, exist_ok=True)
            if keeper is not None:
                keeper.copy(own / MOMENTS)
            files = {} if keeper is None else {f"{MOMENTS}/{name}": found for name, found in keeper.files.items()}
            save_state(own, work.gatherer, work.parts, facts=facts, files=files)
        self.tokens, self._last = tokens, time.monotonic()
        if due == KEEP_AND_LEAVE:
            self.leaving.go()

    def _due(self, tokens: int) -> int:
        """Return what is due after a batch: for all processes what is for any."""
        gone = tokens - self.tokens if self.unit == "tokens" else (time.monotonic() - self._last) / 60
        due = KEEP_AND_LEAVE if self.leaving.asked else KEEP if gone >= self.every else GO_ON
        return due if self.ranks is None else int(self.ranks.most(torch.tensor(due)))

    @contextmanager
    def _replacing(self, part: Path, target: Path) -> Iterator[None]:
        """Let all processes write into the folder `part`; `target` is there once each of them has, and no other is."""
        first = self.ranks is None or not self.ranks.rank
        try:
            if first:
                shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
            self._wait()
            with writing(target):
                yield
                self._wait()
                if first:
                    part.replace(target)
        finally:
            if first:
                shutil.rmtree(part, ignore_errors=True)
        for old in self.folder.glob("after-*") if first else ():
            if old != target:
                shutil.rmtree(old, ignore_errors=True)

    def _wait(self) -> None:
        """Wait for all processes."""
        if self.ranks is not None:
            self.ranks.wait()

    def _own(self, state: Path) -> Path:
        """Return the folder of this process's state."""
        return state if self.ranks is None else state / f"process-{self.ranks.rank}"

    def _same(self, work: Work) -> dict[str, Any]:
        """Return what decides the figures that the states hold."""
        return {**work.same(), **self.share}


@contextmanager
def going_on(checkpoints: Checkpoints | None, work: Work, whole: Pass) -> Iterator[Pass]:
    """Give a pass that begins where an earlier run left off and keeps its state on the way; as it is without."""
    if checkpoints is None:
        yield whole
        return
    start = checkpoints.take_up(work)
    with checkpoints.leaving.put_off():
        yield replace(whole, start=start, on_batch=partial(checkpoints.after, work))


def _moments_files(facts: dict[str, Any]) -> dict[str, str] | None:
    """Return the digests of a state's moments by name, None where an earlier version wrote it."""
    if FILES not in facts:
        return None
    start = f"{MOMENTS}/"
    return {name.removeprefix(start): found for name, found in facts[FILES].items() if name.startswith(start)}
