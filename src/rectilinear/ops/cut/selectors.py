"""Selectors: which layers to remove. Each is one function, named in `registry`.

A selector returns, for every number of layers up to the one asked for, the layers it would remove: a sweep costs no
more than its largest cut.
"""

from __future__ import annotations

import math
import random as randomlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from rectilinear.core.linear import Scores, scores
from rectilinear.core.moments import Moments
from rectilinear.models.runner import Runner
from rectilinear.ops.cut.judge import Judge
from rectilinear.ops.cut.repairs import Repair, Work, none, repaired
from rectilinear.ops.cut.streams import Chunks, Teacher, rows
from rectilinear.ops.cut.verdicts import Verdict, Verdicts

Path = dict[int, tuple[int, ...]]  # for each number of layers, the layers to remove


@dataclass
class Search:
    """What a selector may look at: the dense streams, the judge, and a way to try a set of layers out.

    protect: layers that stay. repair: by which candidates are judged. fit_from: window batches before it judge, the
    others fit. width: candidates tried out at a step of a greedy search, 0 for none. on_try: called with each set
    tried and its verdict. verdicts: those that are known, whose sets are not tried again; asked: what a divergence
    after that repair is called among them.
    """

    runner: Runner
    teacher: Teacher
    judge: Judge
    protect: frozenset[int]
    repair: Repair
    fit_from: int
    width: int
    ridge: float
    seed: int = 0
    on_try: Callable[[tuple[int, ...], float], None] | None = None
    verdicts: Verdicts = field(default_factory=lambda: Verdicts(None, {}))
    asked: str = "divergence"

    @property
    def layers(self) -> list[int]:
        """The layers that may go."""
        return [i for i in range(len(self.runner.stack)) if i not in self.protect]

    @cached_property
    def linearity(self) -> list[Scores]:
        """The paper's score and increment score of every layer, in-sample on the calibration text."""
        found = []
        for index in range(len(self.runner.stack)):
            below, above = self.teacher.at(index), self.teacher.at(index + 1)
            d = below[0].shape[-1]
            moments = Moments.empty(d, d, below[0].device)
            for x, y in zip(below, above, strict=True):
                moments.update(rows(x), rows(y).float() - rows(x).float())
            found.append(scores(moments))
        return found

    def cosines(self, start: int, stop: int) -> torch.Tensor:
        """Return the cosine of the dense stream at two positions, for every token."""
        pairs = zip(self.teacher.at(start), self.teacher.at(stop), strict=True)
        return torch.cat([torch.cosine_similarity(rows(x).float(), rows(y).float(), dim=1) for x, y in pairs])

    def divergence(self, removed: Iterable[int]) -> float:
        """Return KL(dense || cut) after the repair, on windows that it was not fitted on."""

        def verdict(student: Chunks) -> float:
            return self.judge.divergence(student, self.teacher.at(len(self.runner.stack)))

        return self._tried(removed, self.repair, verdict)

    def perplexity(self, removed: Iterable[int]) -> float:
        """Return the perplexity of the text without any repair."""
        return self._tried(removed, none, self.judge.perplexity, only_judge=True)

    def _tried(
        self, removed: Iterable[int], repair: Repair, verdict: Callable[[Chunks], float], only_judge: bool = False
    ) -> float:
        asked = "perplexity" if only_judge else self.asked
        chosen = tuple(sorted(removed))
        found = self.verdicts.get(asked, chosen)
        if found is None:
            value = self._really(chosen, repair, verdict, only_judge)
            found = Verdict(value, self.runner.passed)
            self.verdicts.add(asked, chosen, found)
        self.runner.passed = max(self.runner.passed, found.passed)
        if self.on_try is not None:
            self.on_try(chosen, found.value)
        return found.value

    def _really(
        self, removed: tuple[int, ...], repair: Repair, verdict: Callable[[Chunks], float], only_judge: bool
    ) -> float:
        teacher = self.teacher.first(self.fit_from) if only_judge else self.teacher
        work = Work(self.runner, teacher, frozenset(removed), ridge=self.ridge, fit_from=self.fit_from)
        try:
            return verdict(repaired(work, repair))
        finally:
            work.undo()


Selector = Callable[[Search, int], Path]


def _first(order: Iterable[int], count: int) -> Path:
    chosen = list(order)[:count]
    return {size: tuple(sorted(chosen[:size])) for size in range(1, len(chosen) + 1)}


def linearity(search: Search, count: int) -> Path:
    """Take the most linear layers first (the paper's order)."""
    return _first(sorted(search.layers, key=lambda i: -(search.linearity[i].score or 0.0)), count)


def increment(search: Search, count: int) -> Path:
    """Take the layers whose contribution is most linear first."""
    return _first(sorted(search.layers, key=lambda i: -(search.linearity[i].increment or 0.0)), count)


def bi(search: Search, count: int) -> Path:
    """Take the layers that turn the stream least (ShortGPT's block influence, 1 - mean cosine of input and output)."""
    influence = {i: 1 - float(search.cosines(i, i + 1).double().mean()) for i in search.layers}
    return _first(sorted(search.layers, key=influence.__getitem__), count)


def angular(search: Search, count: int) -> Path:
    """Take the window of layers that turns the stream least (UIDL, ReplaceMe): mean angle over all tokens."""
    found: Path = {}
    for size in range(1, count + 1):
        windows = [tuple(range(i, i + size)) for i in range(len(search.runner.stack) - size + 1)]
        allowed = [window for window in windows if not search.protect.intersection(window)]
        if allowed:
            found[size] = min(allowed, key=lambda window: _angle(search, window[0], window[-1] + 1))
    return found


def _angle(search: Search, start: int, stop: int) -> float:
    return float(search.cosines(start, stop).clamp(-1, 1).acos().double().mean()) / math.pi


def reverse(search: Search, count: int) -> Path:
    """Take the last layers first."""
    return _first(reversed(search.layers), count)


def random(search: Search, count: int) -> Path:
    """Take layers by chance, the same for the same seed."""
    return _first(randomlib.Random(search.seed).sample(search.layers, len(search.layers)), count)


def loss(search: Search, count: int) -> Path:
    """Greedy on the measured loss, without repair (SLEB): at each step every layer left is tried."""
    found: Path = {}
    removed: tuple[int, ...] = ()
    for size in range(1, count + 1):
        tried = [tuple(sorted((*removed, i))) for i in search.layers if i not in removed]
        removed = found[size] = min(tried, key=search.perplexity)
    return found
