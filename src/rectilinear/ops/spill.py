"""Moments beyond a bound of memory lie in files mapped into it: the system keeps of them what there is room for."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

from rectilinear.core.moments import Moments
from rectilinear.errors import ModelError
from rectilinear.files import writing
from rectilinear.ops.kept import KEEPING

PRODUCTS = ("xx", "xz")  # of moments: what is large


class Spill:
    """Lets products of moments lie in memory up to a bound, and beyond it in files, with the same numbers.

    The files have no name, so that none is left behind however a process ends. Every batch reads and writes all of a
    layer's products: larger batches do so less often.
    """

    def __init__(self, memory: float, folder: str | Path) -> None:
        """memory: GiB of products that stay in memory. folder: on the disk that the others go to."""
        self._bytes = memory * 2**30
        self._folder = Path(folder)
        self._kept: weakref.WeakValueDictionary[int, Moments] = weakref.WeakValueDictionary()  # by id
        self._mapped: dict[int, tuple[weakref.ref[Tensor], mmap.mmap]] = {}  # by address

    def hold(self, moments: Moments) -> None:
        """Decide where moments lie, once: products that find no room in memory move to a file.

        Raises ResultError where the disk has no room either.
        """
        self._mapped = {place: held for place, held in self._mapped.items() if held[0]() is not None}
        if id(moments) in self._kept or moments.xx.data_ptr() in self._mapped:
            return
        if sum(map(_nbytes, self._kept.values())) + _nbytes(moments) <= self._bytes:
            self._kept[id(moments)] = moments
            return
        for name in PRODUCTS:
            values: Tensor = getattr(moments, name)
            if values.numel():
                setattr(moments, name, self._moved(values))

    def release(self) -> None:
        """Let the system have the memory of what lies in files, until it is looked at again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for _, place in self._mapped.values():
                place.madvise(mmap.MADV_DONTNEED)

    def _moved(self, values: Tensor) -> Tensor:
        """Return values as they lie in a file."""
        with writing(self._folder, KEEPING):
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                if hasattr(os, "posix_fallocate"):  # a full disk shows here, not as a signal when a page is written
                    os.posix_fallocate(file.fileno(), 0, values.nbytes)
                else:
                    file.truncate(values.nbytes)
                place = mmap.mmap(file.fileno(), values.nbytes)
        moved = torch.frombuffer(place, dtype=values.dtype).view(values.shape).copy_(values)
        self._mapped[moved.data_ptr()] = weakref.ref(moved), place
        return moved


def check_place(device: str) -> None:
    """Raise ModelError for a kind of device whose moments cannot lie in files."""
    if device.startswith(("cuda", "balanced")):
        raise ModelError(f"expected a model on the CPU with a bound on the memory of moments, got it on {device}")


def _nbytes(moments: Moments) -> int:
    return sum(int(getattr(moments, name).nbytes) for name in PRODUCTS)
