"""The heap of a process while a model runs: what is freed stays at hand, within bounds. Only glibc's is changed."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
# What glibc comes to by itself at most, once a process has freed blocks of that size:
MMAP, TRIM = 32 << 20, 64 << 20  # bytes
KEPT = 256 << 20  # bytes free at the heap's top before any go back: what a batch frees
TAKEN = 2  # layers that show how much is taken where nothing was free
ROOM, LEAST_ROOM = 1.25, 64 << 20  # times that much may be free; bytes that may be in any case


class Heap:
    """The heap while a model runs, batch by batch.

    A layer and what is gathered from it free more than glibc keeps: each layer's memory would go back to the system and
    be zeroed for the next, which costs an eighth of a forward pass of a small model. Kept, it is not always found
    again: an aligned block does not fit where one of its size has been, and the heap grows. So what is free goes back
    after the first batch, at the fits, and whenever the process has grown by a quarter more than the first layers after
    the last time took.
    """

    def __init__(self) -> None:
        # Bytes that are resident when nothing is free, 0 until a batch has ended; that the next layers take then.
        self._least = self._taken = 0
        self._layers = 0  # since free memory was given back

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
        """Give back what is free where there is too much of it; to be called after each layer."""
        if not self._least:
            return
        self._layers += 1
        taken = resident() - self._least
        if self._layers <= TAKEN:
            self._taken = max(self._taken, taken)
        elif taken > max(ROOM * self._taken, LEAST_ROOM):
            self.give_back()

    def ends_batch(self) -> None:
        """Begin with the bounds when the first batch has ended."""
        if not self._least:
            self.give_back()

    def give_back(self) -> None:
        """Give the system back what is free, also between what is in use, where other work may not fit."""
        _ask("malloc_trim", 0)
        self._least, self._layers = resident(), 0


def few_arenas() -> None:
    """Let threads to come share two parts of the heap: of its own, each would keep what it does not need."""
    _ask("mallopt", M_ARENA_MAX, 2)


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
