"""The heap of a process while a model runs: what is freed stays at hand, within bounds. Only glibc's is changed."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Of glibc's malloc.h. What glibc comes to by itself at most, once a process has freed blocks of that size:
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP, TRIM = 32 << 20, 64 << 20  # bytes
KEPT = 256 << 20  # bytes free at the heap's top before any go back: what a batch frees
ROOM, LEAST_ROOM = 1.0, 64 << 20  # times what the first batch leaves free; bytes
SELDOM, MORE = 4, 1.05  # layers: what goes back more often is too little room, which grows to so many times as much
GROWN = 1.15  # times what the process was after the first batch: until then nothing needs to be known


class Heap:
    """The heap while a model runs, batch by batch.

    A layer and what is gathered from it free more than glibc keeps: each layer's memory would go back to the system and
    be zeroed for the next, which costs an eighth of a forward pass of a small model. Kept, it is not always found
    again: an aligned block does not fit where one of its size has been, and the heap grows. So what is free goes back
    when the process has grown by a seventh since the first batch, and at the fits; from then on when it has grown by
    what that batch left free.
    """

    def __init__(self) -> None:
        # Bytes that are resident after the first batch; that may be free at a time; resident when nothing was free.
        self._first = self._least = 0
        self._room = 0.0
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
        if self._first:
            limit = self._least + self._room if self._least else GROWN * self._first
            self._layers += 1
            if resident() > limit:
                if self._layers < SELDOM:
                    self._room *= MORE
                self._layers = 0
                self.give_back()

    def ends_batch(self) -> None:
        """Note how far a batch takes the process, with what it leaves free."""
        if not self._first:
            self._first, self._room = resident(), max(ROOM * free(), LEAST_ROOM)

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


class _Info(ctypes.Structure):
    """What mallinfo2 tells, in bytes or numbers of blocks."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def free() -> int:
    """Return the bytes that are free in the heap, whether they lie in memory or not; 0 where that is not told."""
    told = _of_glibc("mallinfo2")
    if told is None:  # as of glibc before 2.33
        return 0
    told.restype = _Info
    return int(told().fordblks)


def _ask(function: str, *numbers: int) -> None:
    """Call a function of glibc's; elsewhere nothing."""
    asked = _of_glibc(function)
    if asked is not None:
        asked(*numbers)


def _of_glibc(function: str) -> Any:
    """Return a function of glibc's, None where it has none or the C library is another."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(libc, function, None) if hasattr(libc, "malloc_trim") else None  # musl has none
