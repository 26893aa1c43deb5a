"""The heap while a model runs: what is freed stays, within bounds, and goes back in the end."""

import ctypes
import sys

import pytest
import torch

from rectilinear.models import heap

MIB = 1 << 20
BLOCK = 16 * MIB
glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc keeps what is freed"
)


def come_and_go(count: int) -> None:
    blocks = [torch.ones(BLOCK // 4) for _ in range(count)]
    del blocks


@glibc
def test_what_is_freed_is_kept_within_and_given_back_after() -> None:
    kept = heap.Heap()
    kept.give_back()
    before = heap.resident()
    with kept.keeping():
        come_and_go(12)
        within = heap.resident()
    assert within - before > 150 * MIB
    assert heap.resident() - before < 50 * MIB


@glibc
def test_the_first_batch_leaves_nothing_free() -> None:
    kept = heap.Heap()
    with kept.keeping():
        come_and_go(12)
        before = heap.resident()
        kept.bound()  # before a batch has ended nothing is too much
        assert heap.resident() == before
        kept.ends_batch()
        assert before - heap.resident() > 150 * MIB


class Process:
    """A process of so many bytes, of which 1,000 are in use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes, self.returns = 1000, 0
        monkeypatch.setattr(heap, "resident", lambda: self.bytes)
        monkeypatch.setattr(heap, "LEAST_ROOM", 30)
        monkeypatch.setattr(heap, "_ask", self.asked)

    def asked(self, function: str, *numbers: int) -> None:
        if function == "malloc_trim":
            self.bytes, self.returns = 1000, self.returns + 1

    def grown(self, kept: heap.Heap, *sizes: int) -> list[int]:
        """Return how often memory went back after each layer that left the process at one of these sizes."""
        returns = []
        for self.bytes in sizes:
            kept.bound()
            returns.append(self.returns)
        return returns


def test_a_quarter_more_than_layers_take_may_be_free(monkeypatch: pytest.MonkeyPatch) -> None:
    process, kept = Process(monkeypatch), heap.Heap()
    assert process.grown(kept, 1900, 5000) == [0, 0]
    kept.ends_batch()
    assert process.grown(kept, 1060, 1100, 1120, 1125, 1126) == [1, 1, 1, 1, 2]
    assert process.grown(kept, 1040, 1050, 1125, 1126) == [2, 2, 2, 3]
    kept.ends_batch()  # of later batches nothing is asked
    assert process.returns == 3


def test_layers_that_take_more_are_given_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    process, kept = Process(monkeypatch), heap.Heap()
    kept.ends_batch()
    assert process.grown(kept, 1000, 1000, 1030, 1031) == [1, 1, 1, 2]
    assert process.grown(kept, 1100, 1100, 1200) == [2, 2, 3]
    assert process.grown(kept, 1200, 1200, 1250, 1251) == [3, 3, 3, 4]


def test_elsewhere_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    monkeypatch.setattr(heap, "resident", lambda: 0)
    kept = heap.Heap()
    with kept.keeping():
        kept.bound()
        kept.ends_batch()
        kept.bound()
