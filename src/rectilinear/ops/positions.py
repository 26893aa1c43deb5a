"""The stream at one position as a batch flows by: its real rows, their norms, and which of them are massive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rectilinear.core.products import raised, row_norms, sums_halves
from rectilinear.core.tails import LogHistogram
from rectilinear.errors import NonFiniteError

CALIBRATION_TOKENS = 1024  # the sink threshold is frozen after the first batches that hold this many
CONTEXT = 8  # tokens before each that is named


@dataclass(frozen=True)
class Rows:
    """The real tokens of one batch, pads left out, n of them in all.

    mask [b, w] or None where every place is real; token, position (in the window), document, offset (in the document)
    [n]; block [n]: held-out bootstrap block, None while fitting. batch: its number in the whole scan.
    """

    mask: Tensor | None
    token: np.ndarray
    position: np.ndarray
    document: np.ndarray
    offset: np.ndarray
    block: Tensor | None
    batch: int = 0
    _there: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict)  # what was sent to a device

    def block_on(self, device: torch.device) -> Tensor:
        """Return `block` on a device, sent there once."""
        assert self.block is not None
        block = self.block
        return self._sent("block", lambda: block, device)

    def _sent(self, name: str, made: Callable[[], Tensor], device: torch.device) -> Tensor:
        """Return a tensor on a device, made and sent there once and without waiting for what it is doing."""
        if (name, device) not in self._there:
            self._there[name, device] = made().to(device, non_blocking=True)
        return self._there[name, device]

    def before(self, index: int) -> tuple[int, ...]:
        """Return up to CONTEXT tokens that stand before a row in its window."""
        return tuple(self.token[index - min(int(self.position[index]), CONTEXT) : index].tolist())

    def of(self, stream: Tensor) -> Tensor:
        """Return the real rows of a stream [b, w, d] as [n, d], where moments can be kept.

        In float32 or float64, but for bfloat16 on a device that multiplies it fast and sums in float32.
        """
        rows = stream.reshape(-1, stream.shape[-1])
        mask = self.mask
        if mask is not None:
            real = self._sent("real", lambda: mask.flatten().nonzero().flatten(), rows.device)
            rows = rows.index_select(0, real)
        if rows.device.type == "mps":  # has no float64
            rows = rows.cpu()
        return rows if rows.dtype == torch.bfloat16 and sums_halves(rows.device.type) else raised(rows)


@dataclass
class Position:
    """Norms at one position of the stream, and which of them are massive."""

    norms: LogHistogram = field(default_factory=LogHistogram)
    threshold: float | None = None

    def sinks(self, norms: Tensor, multiple: float) -> Tensor | None:
        """Add the norms [n]; return a mask of those above `multiple` medians, None where there are none.

        The median is that of the first batches and then fixed, so the verdict does not depend on what comes later.
        """
        self.norms.update(norms)
        limit = self.limit(multiple)
        if self.threshold is None and self.norms.count >= CALIBRATION_TOKENS:
            self.threshold = limit
        found = norms > limit
        return found if bool(found.any()) and limit > 0 else None

    def limit(self, multiple: float) -> float:
        """Return the norm above which a token is massive: as it was fixed, or as it stands; 0 where none is known."""
        return self.threshold if self.threshold is not None else multiple * (self.norms.quantile(0.5) or 0.0)

    def merge(self, other: Position) -> Position:
        """Return the norms of both sets of tokens; the threshold is one."""
        threshold = other.threshold if self.threshold is None else self.threshold
        return Position(self.norms.merge(other.norms), threshold)


def enter(position: int, stream: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the real rows [n, d] of a stream [b, w, d] at `position`, and on the CPU their norms [n].

    Raises NonFiniteError, naming the document and the token, where one is NaN or infinite.
    """
    real = rows.of(stream)
    norms = row_norms(real).cpu()
    check_finite(position, norms, rows)
    return real, norms


@dataclass
class Seen:
    """One position of a batch's stream: its rows [n, d], and on the CPU, once they are known, their norms and sinks."""

    stream: Tensor
    rows: Tensor
    norms: Tensor | None = None
    sinks: Tensor | None = None


def fetch(values: Tensor) -> Callable[[], Tensor]:
    """Begin to copy values to the CPU; returns what waits for them. Memory of a CPU is given as it is."""
    if values.device.type != "cuda":
        there = values.cpu()
        return lambda: there
    copy = values.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(values.device))

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait


def runs_ahead(device: torch.device) -> bool:
    """Tell whether a device still computes what it has been told while the CPU goes on."""
    return device.type == "cuda"


class SideStreams:
    """A stream beside the model's own on each GPU: what memory limits on one runs while arithmetic limits the other.

    Tensors of the model's must be held until what uses them beside it has ended.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def within(self, device: torch.device) -> AbstractContextManager[Any]:
        """Run beside the model within; on a CPU nothing changes."""
        return torch.cuda.stream(self._streams[device]) if device in self._streams else nullcontext()

    def follow(self, device: torch.device) -> None:
        """Let what comes wait for all that the model has been told to do on a device so far."""
        if runs_ahead(device):
            if device not in self._streams:
                self._streams[device] = torch.cuda.Stream(device)
            self._streams[device].wait_stream(torch.cuda.current_stream(device))

    def join(self) -> None:
        """Let the model wait for all that runs beside it."""
        for device, stream in self._streams.items():
            torch.cuda.current_stream(device).wait_stream(stream)


def check_finite(position: int, norms: Tensor, rows: Rows) -> None:
    """Raise NonFiniteError, naming the document and the token, where a norm [n] at a position is NaN or infinite."""
    finite = torch.isfinite(norms)
    if not bool(finite.all()):
        index = int((~finite).nonzero()[0])
        where = f"layer {position - 1}" if position else "the embedding"
        raise NonFiniteError(
            f"{where} gave a NaN or infinite activation in document {rows.document[index]} at token "
            f"{rows.offset[index]}: use another --dtype (bfloat16 or float32), or leave the document out"
        )
