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
def test_what_is_free_beyond_what_was_free_at_first_is_given_back() -> None:
    kept = heap.Heap()
    with kept.keeping():
        come_and_go(12)
        before = heap.resident()
        kept.bound()  # before a batch has ended nothing is too much
        assert heap.resident() == before
        kept.ends_batch()
        kept.give_back()
        bare, room = heap.resident(), int(kept._room)
        assert before - bare > 150 * MIB and room > 150 * MIB
        come_and_go(room // BLOCK - 1)
        for _ in range(heap.SELDOM):
            kept.bound()
        assert heap.resident() - bare > room - 3 * BLOCK
        come_and_go(room // BLOCK + 2)
        kept.bound()
        assert heap.resident() - bare < 20 * MIB and int(kept._room) == room


@glibc
def test_room_that_is_too_little_grows() -> None:
    kept = heap.Heap()
    with kept.keeping():
        kept.ends_batch()
        kept.give_back()
        room = kept._room
        for _ in range(2):
            come_and_go(int(kept._room) // BLOCK + 2)
            kept.bound()
    assert kept._room > room


@glibc
def test_a_process_that_has_grown_by_much_gives_back_before_it_is_known_what_a_batch_takes() -> None:
    kept = heap.Heap()
    with kept.keeping():
        kept.ends_batch()
        bare = heap.resident()
        come_and_go(-(-bare // (4 * BLOCK)))
        kept.bound()
        assert heap.resident() - bare < 20 * MIB


def test_elsewhere_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: pytest.fail("the C library was asked"))
    monkeypatch.setattr(heap, "resident", lambda: 0)
    kept = heap.Heap()
    with kept.keeping():
        kept.bound()
        kept.ends_batch()
        kept.bound()
