"""The heap while a model runs: what is freed stays, and goes back in the end."""

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from rectilinear.models import heap

MIB = 1 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps what is freed"
)
def test_what_is_freed_is_kept_within_and_given_back_after() -> None:
    heap.give_back_freed()
    before = resident()
    with heap.freed_memory_kept():
        blocks = [torch.ones(16 * MIB // 4) for _ in range(12)]
        del blocks
        within = resident()
    assert within - before > 150 * MIB
    assert resident() - before < 50 * MIB


def test_elsewhere_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    with heap.freed_memory_kept():
        heap.give_back_freed()
