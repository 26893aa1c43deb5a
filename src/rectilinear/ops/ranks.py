"""One scan by several processes at once (torchrun, accelerate launch): what they gather is summed over all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from rectilinear.core.grams import Grams
from rectilinear.core.moments import Moments
from rectilinear.core.tails import LogHistogram
from rectilinear.data.pieces import Share
from rectilinear.errors import ModelError, RectilinearError, first_line
from rectilinear.ops.carriers import CLASSES, SINK, Carried
from rectilinear.ops.layers import GEOMETRY, Gatherer, Layer
from rectilinear.ops.pair import JUDGED, Pair
from rectilinear.ops.parts import Submodules

PATIENCE = timedelta(minutes=30)  # for a process that is alive and slow; one that has died is noticed at once
Value = TypeVar("Value")


class Ranks:
    """The processes of one scan. rank: this one's number, from 0; size: how many there are."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @property
    def share(self) -> Share:
        """The share of the batches that is this process's."""
        return Share(self.rank, self.size)

    def sum_(self, values: Tensor) -> Tensor:
        """Replace values by their sums over all processes."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def most(self, values: Tensor) -> Tensor:
        """Replace values by the largest of all processes."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        return float(self.sum_(torch.tensor(value, dtype=torch.float64)))

    def from_first(self, value: Value) -> Value:
        """Return the value that process 0 has."""
        box: list[Any] = [value if self.rank == 0 else None]
        with _told():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def collected(self, value: Value) -> list[Value]:
        """Return the values of all processes, in their order: for small ones."""
        box: list[Any] = [None] * self.size
        with _told():
            dist.all_gather_object(box, value)
        return box

    def wait(self) -> None:
        """Wait for all processes."""
        with _told():
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let process 0 do something first, and the others then: what it has put on disk they find."""
        if self.rank:
            self.wait()
        yield
        if not self.rank:
            self.wait()

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        with _told():
            dist.all_reduce(values, op=how)
        return values

    def shift(self, shift: Tensor, n: int) -> Tensor:
        """Return the shift of the first process that has rows; process 0's where none has."""
        owner = int(-self.most(torch.tensor(-self.rank if n else -self.size)))
        agreed = shift.clone()
        with _told():
            dist.broadcast(agreed, src=owner % self.size)
        return agreed


@contextmanager
def ranks_here() -> Iterator[Ranks | None]:
    """Give the processes that this one was started with, None where it is alone; an error names the process.

    The launcher says which it is, by the variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield None
        return
    rank = int(os.environ["RANK"])
    cuda = _own_gpu() < torch.cuda.device_count()
    if cuda:
        torch.cuda.set_device(_own_gpu())
    try:
        with _told():
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        yield Ranks(rank, size)
    except RectilinearError as error:  # the group is left as it is: to take it down could mean to wait for the dead
        raise type(error)(f"process {rank} of {size}: {error}") from error
    dist.destroy_process_group()


def device_here(device: str) -> str:
    """Return this process's own device for "auto" and "cuda"; raises ModelError for one that it would share."""
    gpus = torch.cuda.device_count()
    if device == "balanced" or device.startswith("cuda:"):
        raise ModelError(f"expected a device for each process, auto, cuda or cpu, got {device!r}")
    if device != "cpu" and 0 < gpus <= _own_gpu():
        raise ModelError(
            f"expected a GPU for each process, got {gpus} GPUs for process {_own_gpu()} of this machine: start fewer "
            "processes, or use --device cpu"
        )
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    return f"cuda:{torch.cuda.current_device()}" if cuda else "cpu" if device == "auto" else device


def _own_gpu() -> int:
    """Return the number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sum_fit(ranks: Ranks, pairs: Iterable[Pair]) -> None:
    """Give every process the moments of the fit rows of all, for its maps."""
    for pair in _alike(ranks, pairs):
        _sum_moments(ranks, pair)


def leave_fit_(gatherer: Gatherer, parts: Submodules | None) -> None:
    """Leave the fit moments to process 0, so that they count once when everything is summed; the maps stay."""
    for holder in (*filter(None, gatherer.layers), *(parts.parts.values() if parts else ())):
        holder.pair = holder.pair.emptied()


def sum_scan(ranks: Ranks, gatherer: Gatherer, parts: Submodules | None) -> None:
    """Give every process what all have gathered; the fit moments must be in process 0 alone by now."""
    layers = [layer for layer in gatherer.layers if layer is not None]
    for pair in _alike(ranks, [layer.pair for layer in layers] + (parts.pairs() if parts else [])):
        _sum_moments(ranks, pair)
        for held in (pair.heldout, pair.heldout_ordinary):
            for name in JUDGED if held is not None else ():
                ranks.sum_(getattr(held, name))
    for layer in layers:
        _sum_layer(ranks, layer)
    for position in gatherer.positions:
        _sum_histogram(ranks, position.norms)
    for part in parts.parts.values() if parts else ():
        part.ratio_sum, part.count = ranks.total(part.ratio_sum), int(ranks.total(part.count))
    if gatherer.kinds is not None:
        gatherer.kinds.table = ranks.most(torch.from_numpy(_longest(ranks, gatherer.kinds.table, -1))).numpy()
    _sum_spans(ranks, gatherer)
    _collect(ranks, gatherer, layers)


def _alike(ranks: Ranks, pairs: Iterable[Pair]) -> list[Pair]:
    """Return the pairs, with the groups that any process has in each of them."""
    pairs = list(pairs)
    there = [[pair.sink is not None, pair.heldout_ordinary is not None] for pair in pairs]
    for pair, (sink, ordinary) in zip(pairs, ranks.most(torch.tensor(there, dtype=torch.int64)).tolist(), strict=True):
        if sink and pair.sink is None:
            pair.sink = Moments.empty(pair.d, pair.d, pair.device)
        if ordinary and pair.heldout_ordinary is None and pair.heldout is not None:
            pair.heldout_ordinary = pair.heldout.branch()
    return pairs


def _sum_moments(ranks: Ranks, pair: Pair) -> None:
    pair.ordinary = _summed(ranks, pair.ordinary)
    pair.sink = None if pair.sink is None else _summed(ranks, pair.sink)


def _summed(ranks: Ranks, moments: Moments) -> Moments:
    """Return the moments of the rows of all processes."""
    shifts = ranks.shift(moments.shift_x, moments.n), ranks.shift(moments.shift_z, moments.n)
    if not (torch.equal(shifts[0], moments.shift_x) and torch.equal(shifts[1], moments.shift_z)):
        moments = moments.about(*shifts)
    for values in moments.sums().values():
        ranks.sum_(values)
    eps = float(ranks.most(torch.tensor(moments.eps, dtype=torch.float64)))
    return replace(moments, n=int(ranks.total(moments.n)), eps=eps)


def _sum_histogram(ranks: Ranks, found: LogHistogram) -> None:
    ranks.sum_(found.counts)
    ranks.sum_(found.squares)
    ends = ranks.most(torch.tensor([found.largest, -found.smallest], dtype=torch.float64))
    found.largest, found.smallest = float(ends[0]), -float(ends[1])


def _sum_layer(ranks: Ranks, layer: Layer) -> None:
    for name in GEOMETRY:
        value = getattr(layer, name)
        setattr(layer, name, type(value)(ranks.total(value)))
    if layer.outputs is not None:
        layer.outputs = _summed(ranks, layer.outputs)
    _sum_histogram(ranks, layer.errors)
    carried = layer.carried
    for name in ("counts", "squares"):
        padded = _longest(ranks, getattr(carried, name), 0)
        setattr(carried, name, ranks.sum_(torch.from_numpy(padded)).numpy())
    carried.sinks, carried.sink_squares = int(ranks.total(carried.sinks)), ranks.total(carried.sink_squares)
    _sum_kinds(ranks, carried)


def _sum_kinds(ranks: Ranks, carried: Carried) -> None:
    names = (SINK, *CLASSES)
    there = ranks.most(torch.tensor([name in carried.errors for name in names], dtype=torch.int64))
    for name in (name for name, known in zip(names, there.tolist(), strict=True) if known):
        _sum_histogram(ranks, carried.errors[name])


def _longest(ranks: Ranks, values: np.ndarray, fill: int) -> np.ndarray:
    """Return values [n], filled up to the length of the longest process."""
    size = int(ranks.most(torch.tensor(len(values))))
    return np.pad(values, (0, size - len(values)), constant_values=fill)


def _sum_spans(ranks: Ranks, gatherer: Gatherer) -> None:
    spans = gatherer.spans
    if spans is None or spans.fitted is None:
        return
    if spans.heldout is None or not spans.heldout.n:
        spans.heldout = spans.fitted.emptied()  # this process has judged nothing
    spans.fitted, spans.heldout = (_summed_grams(ranks, grams) for grams in (spans.fitted, spans.heldout))


def _summed_grams(ranks: Ranks, grams: Grams) -> Grams:
    grams = grams.about(ranks.shift(grams.shift, grams.n))
    for values in grams.tensors().values():
        ranks.sum_(values)
    grams.n = int(ranks.total(grams.n))
    return grams


def _collect(ranks: Ranks, gatherer: Gatherer, layers: list[Layer]) -> None:
    """Merge what is small: the worst tokens, the names of sinks, the sample, the passage."""
    found = [(layer.triggers, layer.sinks, layer.sample) for layer in layers]
    everything = ranks.collected((found, gatherer.passage))
    for index, layer in enumerate(layers):
        for others, _ in everything[: ranks.rank] + everything[ranks.rank + 1 :]:
            layer.merge_small_(*others[index])
    for _, passage in everything:
        gatherer.passage = gatherer.passage.merge(passage)


@contextmanager
def _told() -> Iterator[None]:
    """Say in one line that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RectilinearError(
            f"another process of this scan has ended or does not answer ({first_line(error)[:200]}): see what it said"
        ) from error
