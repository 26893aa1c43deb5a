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
def test_what_is_free_beyond_what_layers_take_is_given_back() -> None:
    kept = heap.Heap()
    with kept.keeping():
        come_and_go(12)
        before = heap.resident()
        kept.bound()  # before a batch has ended nothing is too much
        assert heap.resident() == before
        kept.ends_batch()
        bare = heap.resident()
        assert before - bare > 150 * MIB
        for _ in range(heap.TAKEN):
            come_and_go(8)
            kept.bound()
        taken = heap.resident() - bare
        assert taken > 7 * BLOCK
        come_and_go(9)
        kept.bound()
        assert heap.resident() - bare >= taken
        come_and_go(14)
        kept.bound()
        assert heap.resident() - bare < 20 * MIB


@glibc
def test_layers_that_take_more_are_given_more_room() -> None:
    kept = heap.Heap()
    with kept.keeping():
        kept.ends_batch()
        bare = heap.resident()
        rooms = []
        for count in (4, 8):
            for _ in range(heap.TAKEN + 1):
                come_and_go(count)
                kept.bound()
            rooms.append(heap.resident() - bare)
            come_and_go(2 * count)
            kept.bound()
            assert heap.resident() - bare < 20 * MIB
    assert rooms[0] > 3 * BLOCK and rooms[1] > 7 * BLOCK


def test_elsewhere_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    monkeypatch.setattr(heap, "resident", lambda: 0)
    kept = heap.Heap()
    with kept.keeping():
        kept.bound()
        kept.ends_batch()
        kept.bound()
