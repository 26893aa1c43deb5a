"""The heap of a process while a model runs: what is freed stays at hand, within bounds. Only glibc's is changed."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of glibc's malloc.h. What glibc comes to by itself at most, once a process has freed blocks of that size:
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP, TRIM = 32 << 20, 64 << 20  # bytes
KEPT = 256 << 20  # bytes free at the heap's top before any go back: what a batch frees
ROOM = 1.5  # times what the first batch has left free


class Heap:
    """The heap while a model runs, batch by batch.

    A layer and what is gathered from it free more than glibc keeps: each layer's memory would go back to the system and
    be zeroed for the next, which costs an eighth of a forward pass of a small model. Kept, it is not always found
    again: an aligned block does not fit where one of its size has been, and the heap grows. So what is free goes back
    once the process has grown by half as much again as one batch leaves free.
    """

    def __init__(self) -> None:
        self._room: float | None = None  # bytes
        self._least = 0  # resident, when nothing was free

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep what is freed within, to be given back when it ends."""
        _ask("mallopt", M_MMAP_THRESHOLD, MMAP)
        _ask("mallopt", M_TRIM_THRESHOLD, KEPT)
        try:
            yield
        finally:
            _ask("mallopt", M_TRIM_THRESHOLD, TRIM)
            self.give_back()

    def bound(self) -> None:
        """Give back what is free where there is too much of it; to be called often: it costs a look at /proc."""
        if self._room is not None and resident() > self._least + self._room:
            self.give_back()

    def ends_batch(self) -> None:
        """Learn of the first batch how much free memory one takes."""
        if self._room is None:
            before = resident()
            self.give_back()
            self._room = ROOM * (before - self._least)

    def give_back(self) -> None:
        """Give the system back what is free, also between what is in use, where other work may not fit."""
        _ask("malloc_trim", 0)
        self._least = resident()


def resident() -> int:
    """Return the bytes of the process that lie in memory; 0 where /proc does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _ask(function: str, *numbers: int) -> None:
    """Call a function of glibc's; elsewhere nothing."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):  # musl has none
        getattr(libc, function)(*numbers)
