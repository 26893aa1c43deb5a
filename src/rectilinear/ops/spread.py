"""The same work for every layer, on all cores at once: matrices of a layer's size do not fill them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Made = TypeVar("Made")


def spread(work: Callable[[Item], Made], items: Iterable[Item], device: torch.device) -> list[Made]:
    """Return `work` of each item, in order; the first exception is raised. Torch's threads each take an item.

    `work` must not depend on another item's. device: where it is done; an accelerator does one after the other, and
    would hold the matrices of all threads at once.
    """
    threads = torch.get_num_threads()
    if threads == 1 or device.type != "cpu":
        return [work(item) for item in items]

    def alone(item: Item) -> Made:
        with torch.inference_mode():  # each thread has its own mode
            return work(item)

    torch.set_num_threads(1)  # threads born from here on work alone
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(alone, items))
    finally:
        torch.set_num_threads(threads)
