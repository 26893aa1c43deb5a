"""The heap of a process while a model runs: what is freed stays at hand. Changes nothing but on glibc."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h. What glibc comes to by itself at most, once a process has freed blocks of that size:
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP, TRIM = 32 << 20, 64 << 20  # bytes
KEPT = (
    256 << 20
)  # bytes free at the heap's top before any go back: what a batch frees; a gigabyte raised the peak now and then


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let the C library keep what is freed within, to be given back when it ends.

    A layer and what is gathered from it free more than glibc keeps: each layer's memory would go back to the system
    and be zeroed for the next, which costs an eighth of a forward pass of a small model.
    """
    _ask("mallopt", M_MMAP_THRESHOLD, MMAP)
    _ask("mallopt", M_TRIM_THRESHOLD, KEPT)
    try:
        yield
    finally:
        _ask("mallopt", M_TRIM_THRESHOLD, TRIM)
        give_back_freed()


def give_back_freed() -> None:
    """Give the system back what is free, also between what is in use, where other work may not fit."""
    _ask("malloc_trim", 0)


def _ask(function: str, *numbers: int) -> None:
    """Call a function of glibc's; elsewhere nothing."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "malloc_trim"):  # musl has none
        getattr(libc, function)(*numbers)
