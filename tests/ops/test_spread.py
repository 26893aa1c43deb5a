from __future__ import annotations

import threading

import pytest
import torch

from rectilinear.ops.spread import spread

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_keep_the_order_of_the_items(threads):
    assert spread(lambda n: n * n, range(20), CPU) == [n * n for n in range(20)]
    assert torch.get_num_threads() == threads


def test_every_thread_takes_an_item_and_computes_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        meeting = threading.Barrier(2, timeout=30)  # breaks unless two items are under way at once

        def work(_):
            meeting.wait()
            return torch.get_num_threads()

        assert spread(work, range(2), CPU) == [1, 1]
    finally:
        torch.set_num_threads(before)


def test_an_error_comes_out_and_the_threads_come_back(threads):
    def work(_):
        raise RuntimeError("of an item")

    with pytest.raises(RuntimeError, match="of an item"):
        spread(work, range(3), CPU)
    assert torch.get_num_threads() == threads


def test_an_accelerator_does_one_after_the_other():
    def work(_):
        return threading.current_thread()

    assert set(spread(work, range(4), torch.device("cuda"))) == {threading.current_thread()}
