"""Products of rows: float32 or float64 throughout, or bfloat16 rows on matrix units that sum in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from rectilinear.errors import RectilinearError

STRIPS = 4  # of a symmetric product, alike in width
TILE = 128, 256  # rows and columns of a product that a GPU's multiprocessor makes at a time
CANCELS = 10.0  # squared norms over squared distances, of float32 rows
ALIGNED = 32  # columns: matrix units take others five times as long


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep float32 products in float32: no TF32 or bfloat16 passes, whatever the process has set."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def sums_halves(device_type: str) -> bool:
    """Tell whether a kind of device multiplies bfloat16 matrices into float32 ones: CUDA does, from torch 2.8 on."""
    if device_type != "cuda":
        return False
    try:
        one = torch.ones(16, 16, dtype=torch.bfloat16, device=device_type)
        return torch.mm(one, one, out_dtype=torch.float32).dtype == torch.float32
    except (TypeError, RuntimeError):
        return False


def zeros64(*shape: int, device: torch.device | str) -> Tensor:
    """Return float64 zeros; raises RectilinearError for a device that has none."""
    if torch.device(device).type == "mps":
        raise RectilinearError("expected a device with float64 numbers, got mps, which has none: use the device cpu")
    return torch.zeros(shape, dtype=torch.float64, device=device)


def raised(rows: Tensor) -> Tensor:
    """Return rows in float32; float64 stays."""
    return rows if rows.dtype == torch.float64 else rows.float()


def row_norms(rows: Tensor) -> Tensor:
    """Return the norms [n] of rows [n, d], in float32 for half precisions; reads them once."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))


def row_squares(rows: Tensor) -> Tensor:
    """Return the squared norms [n] of rows [n, d], in float32 for half precisions."""
    return row_norms(rows).square_()


def product(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return a @ b of two matrices of one type; that of bfloat16 ones is float32, as every single product is in it."""
    if a.dtype != torch.bfloat16:
        return torch.mm(a, b, out=out)
    if sums_halves(a.device.type):
        more = {} if out is None else {"out": out}
        return torch.mm(a, b, out_dtype=torch.float32, **more)
    return torch.mm(a.float(), b.float(), out=out)


def add_square(total: Tensor, rows: Tensor) -> None:
    """Add the lower triangle of rows^T rows to `total` [p, p]: in strips, five eighths or so of the whole."""
    p = rows.shape[1]
    # Strips of another type are put together first: adding each to a part of the total takes three times as long.
    made = total if rows.dtype == total.dtype else total.new_zeros(p, p, dtype=torch.float32)
    for start, stop in pairwise((0, *_strips(p, rows.device))):
        strip, a, b = made[start:stop, :stop], rows[:, start:stop], rows[:, :stop]
        if made is total:
            strip.addmm_(a.T, b)
        else:
            product(a.T, b, out=strip)
    if made is not total:
        total += made


@cache
def _strips(p: int, device: torch.device) -> tuple[int, ...]:
    """Return where the strips of a symmetric product of p columns end, p last."""
    if device.type == "cuda":
        return in_waves(p, torch.cuda.get_device_properties(device).multi_processor_count)
    width = max(-(-p // STRIPS), 1)
    width += -width % ALIGNED
    return (*range(width, p, width), p)


def in_waves(p: int, units: int) -> tuple[int, ...]:
    """Return the ends of strips that take fewest waves of tiles on `units` multiprocessors, then least work.

    A strip of a few tiles takes as long as one of a tile for each multiprocessor: four strips alike of 4,096 columns
    take as many waves on 132 of them as the whole square.
    """
    rows, columns = TILE
    best: dict[int, tuple[int, int, tuple[int, ...]]] = {0: (0, 0, ())}
    for stop in (*range(columns, p, columns), p):
        found = []
        for start, (waves, work, ends) in best.items():
            tiles = -(-(stop - start) // rows) * -(-stop // columns)
            found.append((waves + -(-tiles // units), work + tiles, (*ends, stop)))
        best[stop] = min(found)
    return best[p][2]


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a^T b to `total` in place, for rows a and b of one type."""
    if a.dtype == total.dtype:
        total.addmm_(a.T, b)
    else:
        total += product(a.T, b)


def weighted_sums(weights: Tensor, rows: Tensor) -> Tensor:
    """Return the sums [p] of rows [n, p] times weights [n]: a product, which reads them at twice the speed of a sum."""
    return product(weights[None], rows)[0]


def distances(rows: Tensor, norms: Tensor, center: Tensor) -> Tensor:
    """Return the squared distances [n] of rows [n, p], of norms [n], to a center [p] that bfloat16 holds.

    In float32, of float64 rows in float64. bfloat16 rows are multiplied, as their differences would be rounded; float32
    ones on a CPU too, which reads them once, unless that cancels.
    """
    center = center.to(rows.dtype)
    if rows.dtype == torch.bfloat16 or (rows.dtype == torch.float32 and rows.device.type == "cpu"):
        squares = norms.square()
        along = product(rows, center[:, None])[:, 0]
        found = (squares - 2 * along + center.float().square().sum()).clamp_(min=0)
        if rows.dtype == torch.bfloat16 or found.sum() * CANCELS > squares.sum():
            return found
    return row_squares(rows - center)


def halves(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return two bfloat16 matrices whose sum is `weight` to 2^-17 of each element."""
    high = weight.bfloat16()
    return high, (weight - high).bfloat16()


def add_halves(start: Tensor, rows: Tensor, weight: tuple[Tensor, Tensor]) -> Tensor:
    """Add rows @ (weight[0] + weight[1]) to start [n, q], float32, for bfloat16 rows [n, p]; return it."""
    for half in weight:
        if sums_halves(rows.device.type):
            torch.addmm(start, rows, half, out_dtype=torch.float32, out=start)
        else:
            start.addmm_(rows.float(), half.float())
    return start
