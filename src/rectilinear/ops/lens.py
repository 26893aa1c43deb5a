"""What the head says of a stream: at its end, and on its way there, as it is and after a linear map to the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from rectilinear.core.prediction import CHUNK, leading, standing
from rectilinear.models.runner import Runner
from rectilinear.ops.maps import Maps


class Said:
    """What the head says of a window's stream: at its end for every token, and on its way for the `chosen` ones.

    end: (token, probability), a row each [n]. rank, probability: of the tokens that came [n] or [n - 1]. logit, linear:
    by chosen token, the guesses at positions 0 to L - 1, of the stream as it is and mapped to the end.
    """

    def __init__(
        self,
        runner: Runner,
        stream: list[Tensor],
        maps: Maps,
        came: Tensor,
        chosen: list[int],
        tell: Callable[[float], None],
    ) -> None:
        self._runner = runner
        vocabulary = int(runner.model.config.get_text_config().vocab_size)
        self._step = max(1, CHUNK // vocabulary)
        self._tell, self._done = tell, 0
        ends, count = stream[-1][0], len(chosen)
        self._total = len(ends) + 2 * len(maps.lens) * count
        self.end: list[tuple[int, float]] = []
        self.rank: list[int] = []
        self.probability: list[float] = []
        for start, logits in self._logits(ends):
            self.end += _leading(logits)
            ids = came[start : start + len(logits)].to(logits.device)
            rank, probability = standing(logits[: len(ids)], ids)
            self.rank += rank.tolist()
            self.probability += probability.tolist()
        found = list(self._guesses(_ways(stream, maps, chosen)))
        lists = [found[start : start + count] for start in range(0, len(found), count or 1)]
        self.logit = dict(zip(chosen, zip(*lists[0::2], strict=True), strict=True))
        self.linear = dict(zip(chosen, zip(*lists[1::2], strict=True), strict=True))

    def _guesses(self, parts: Iterable[Tensor]) -> Iterator[tuple[int, float]]:
        """Yield a guess for every row of the parts [m, d], which go through the head together as far as they fit."""
        held: list[Tensor] = []
        for part in parts:
            held.append(part)
            if sum(map(len, held)) >= self._step:
                yield from self._leading(torch.cat(held))
                held = []
        if held:
            yield from self._leading(torch.cat(held))

    def _leading(self, rows: Tensor) -> Iterator[tuple[int, float]]:
        for _, logits in self._logits(rows):
            yield from _leading(logits)

    def _logits(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, logits [m, v]) for rows [n, d], some at a time: vocabularies are large."""
        for start in range(0, len(rows), self._step):
            logits = self._runner.logits(rows[None, start : start + self._step])[0]
            yield start, logits
            self._done += len(logits)
            self._tell(self._done / self._total)


def _ways(stream: list[Tensor], maps: Maps, chosen: list[int]) -> Iterator[Tensor]:
    """Yield the rows [m, d] of the chosen tokens at each position but the last, as they are and mapped to the end."""
    last = stream[-1]
    for x, one in zip(stream, maps.lens, strict=False):
        rows = x[0, chosen]
        yield rows.to(last.device)
        exact = rows.cpu().double()
        yield (exact + one(exact)).to(last)


def _leading(logits: Tensor) -> Iterator[tuple[int, float]]:
    token, probability = leading(logits)
    return zip(token.tolist(), probability.tolist(), strict=True)
