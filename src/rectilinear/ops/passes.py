"""The model's way through a text: batches of the fit part, then of the held-out part, all of them or a share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, islice, takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch

from rectilinear.data.pieces import WHOLE, Batch, Piece, Pieces, Share, batches
from rectilinear.models.heap import Heap
from rectilinear.models.mode import eval_mode
from rectilinear.models.stack import forward, watch
from rectilinear.models.submodules import watch_parts
from rectilinear.ops.layers import Gatherer
from rectilinear.ops.pair import Pair
from rectilinear.ops.parts import Submodules
from rectilinear.ops.positions import CALIBRATION_TOKENS, Rows
from rectilinear.ops.ranks import Ranks, leave_fit_, sum_fit, sum_scan
from rectilinear.ops.spread import spread

if TYPE_CHECKING:
    from transformers import PreTrainedModel

USUAL, USUAL_GPU = 4096, 16_384  # tokens in a forward pass
MAX_BLOCKS = 1000  # more held-out documents than this are resampled in groups of neighbours


def usual_batch(device: str) -> int:
    """Return how many tokens a scan passes through a model at once on a kind of device.

    Each batch's products are added up in float64, d^2 numbers a layer: next to a GPU's products that takes longer.
    """
    return USUAL_GPU if device.startswith("cuda") else USUAL


@dataclass(frozen=True)
class Progress:
    """How far a scan is: tokens done of total, and the mean held-out score so far (None while fitting)."""

    done: int
    total: int
    score: float | None


@dataclass
class Pass:
    """One pass over `pieces`, or over a share of them; what layers see goes to `gatherer` and `parts`.

    start: how many first batches of the whole were seen by an earlier run, whose state the gatherer has taken up.
    on_batch: told after each batch, or where batches are shared out after each round of one a share and at the end of
    each part, how many of the whole have been seen by now, and how many tokens of this share.
    """

    model: PreTrainedModel
    stack: torch.nn.ModuleList
    pieces: Pieces
    gatherer: Gatherer
    parts: Submodules | None
    batch_tokens: int
    share: Share = WHOLE
    on_progress: Callable[[Progress], None] | None = None
    start: int = 0
    on_batch: Callable[[int, int], None] | None = None
    done: int = 0
    heap: Heap = field(default_factory=Heap)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the layers: within it the methods below may be called, in their order."""
        layers = watch(self.stack, self._on_layer, self.gatherer.measured)
        with torch.inference_mode(), eval_mode(self.model), self.heap.keeping(), layers, self._watch_parts():
            yield

    def fit(self) -> None:
        """Pass the share of the fit part through the model.

        What is decided by the first tokens, the shifts of the sums and the norm of a sink, is decided by the first
        batches of the whole part, whoever's they are.
        """
        opening = self._opening()
        if self.share.index and not self.start:
            for number, batch in enumerate(islice(batches(self.pieces.fit, self.batch_tokens), opening)):
                self._run(number, batch, None)
            self.gatherer.finish()
            self.gatherer.fix_thresholds()
            self.empty_()
        for number, batch in enumerate(batches(self.pieces.fit, self.batch_tokens)):
            self._step(number, batch, None, self.share.owns(number, opening))
        self.gatherer.finish()
        self.gatherer.fix_thresholds()

    @property
    def fitted(self) -> bool:
        """Whether the state that was taken up has the maps."""
        return self.start > self._fit_batches

    def start_heldout(self) -> None:
        """Fit the maps on what was gathered."""
        if self.gatherer.keeper is not None:
            self.gatherer.keeper.fitted(self.gatherer.pairs())
        blocks = max(self._blocks().values()) + 1

        def fit(pair: Pair) -> None:
            pair.start_heldout(blocks)
            self.gatherer.release()
            self.heap.bound()

        pairs = self.pairs()
        self.heap.give_back()  # fits need room in other places than a forward pass: a tenth off the peak
        spread(fit, pairs, pairs[0].device)
        self.heap.give_back()

    def judge(self) -> None:
        """Pass the share of the held-out part through the model, and judge the maps on it."""
        blocks = self._blocks()
        for number, batch in enumerate(batches(self.pieces.heldout, self.batch_tokens), self._fit_batches):
            self._step(number, batch, blocks, self.share.owns(number, 0))
        self.gatherer.finish()

    def pairs(self) -> list[Pair]:
        """Return the pairs of all layers and submodules."""
        return [*self.gatherer.pairs(), *(self.parts.pairs() if self.parts else ())]

    def empty_(self) -> None:
        """Forget all tokens, and keep shifts, thresholds and maps."""
        self.gatherer.empty_()
        if self.parts is not None:
            self.parts.empty_()

    def _step(self, number: int, batch: Batch, blocks: dict[tuple[int, int], int] | None, own: bool) -> None:
        """Run a batch that is the share's own and that no earlier run has seen, and tell how far the pass is."""
        if own and number >= self.start:
            self._run(number, batch, blocks)
        if own:
            self._tell(batch)
        seen = number + 1
        if number >= self.start and self.on_batch is not None and (seen % self.share.of == 0 or seen in self._ends):
            self.gatherer.finish()
            self.on_batch(seen, self.done)

    def _run(self, number: int, batch: Batch, blocks: dict[tuple[int, int], int] | None) -> None:
        self.gatherer.rows = rows_of(batch, blocks, number)
        run_batch(self.model, self.stack, batch)
        self.heap.ends_batch()

    def _on_layer(self, index: int, x: torch.Tensor, y: torch.Tensor) -> None:
        self.gatherer.on_layer(index, x, y)
        self.heap.bound()

    def _tell(self, batch: Batch) -> None:
        self.done += int(batch.mask.sum())
        if self.on_progress is not None:
            # Shares are alike in size: as far as this one is, so far are all.
            done = min(self.done * self.share.of, self.pieces.tokens)
            self.on_progress(Progress(done, self.pieces.tokens, self.gatherer.running_score()))

    @cached_property
    def _fit_batches(self) -> int:
        return sum(1 for _ in batches(self.pieces.fit, self.batch_tokens))

    @cached_property
    def _ends(self) -> tuple[int, int]:
        """How many batches have been seen when each part ends."""
        return self._fit_batches, self._fit_batches + sum(1 for _ in batches(self.pieces.heldout, self.batch_tokens))

    def _opening(self) -> int:
        """Return how many first batches of the fit part decide what counts as a sink; at least all in a short text."""
        ends = accumulate(int(batch.mask.sum()) for batch in batches(self.pieces.fit, self.batch_tokens))
        return 1 + sum(1 for _ in takewhile(lambda seen: seen < CALIBRATION_TOKENS, ends))

    def _blocks(self) -> dict[tuple[int, int], int]:
        """Return for each held-out piece the block it is resampled with: its document's, or its own."""
        by_window = self.pieces.unit == "window"

        def unit(piece: Piece) -> tuple[int, int]:
            return piece.document, piece.start if by_window else 0

        units = {key: index for index, key in enumerate(dict.fromkeys(unit(p) for p in self.pieces.heldout))}
        count = max(len(units), MAX_BLOCKS)
        return {(p.document, p.start): units[unit(p)] * MAX_BLOCKS // count for p in self.pieces.heldout}

    def _watch_parts(self) -> AbstractContextManager[None]:
        return nullcontext() if self.parts is None else watch_parts(self.stack, self.parts.on_parts)


def run_pass(whole: Pass, ranks: Ranks | None = None) -> None:
    """Make a pass over both parts, the fit part first; `ranks` share the batches, and sum what they see."""
    with whole.watching():
        whole.fit()
        if whole.pieces.heldout:
            if not whole.fitted:
                if ranks is not None:
                    sum_fit(ranks, whole.pairs())
                whole.start_heldout()
                if ranks is not None and ranks.rank:
                    leave_fit_(whole.gatherer, whole.parts)
            whole.judge()
        if ranks is not None:  # here, as only inference mode may change what was made in it
            sum_scan(ranks, whole.gatherer, whole.parts)


def run_batch(model: PreTrainedModel, stack: torch.nn.ModuleList, batch: Batch) -> int:
    """Let a batch pass through the model; return the number of its tokens, pads left out."""
    ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
    forward(model, stack, ids.to(model.device), None if batch.mask.all() else mask.long().to(model.device))
    return int(batch.mask.sum())


def rows_of(batch: Batch, blocks: dict[tuple[int, int], int] | None = None, number: int = 0) -> Rows:
    """Return the real tokens of a batch; `blocks` as numbered by their document and start, None while fitting."""
    row, position = np.nonzero(batch.mask)
    block = None
    if blocks is not None:
        of_piece = np.array([blocks[d, s] for d, s in zip(batch.document.tolist(), batch.start.tolist(), strict=True)])
        block = torch.from_numpy(of_piece[row])
    mask = None if batch.mask.all() else torch.from_numpy(batch.mask)
    token = batch.ids[row, position]
    return Rows(mask, token, position, batch.document[row], batch.start[row] + position, block, number)
