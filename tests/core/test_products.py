from itertools import pairwise

import pytest
import torch

from rectilinear.core.linear import AffineMap
from rectilinear.core.moments import Moments
from rectilinear.core.products import (
    add_halves,
    add_square,
    distances,
    halves,
    in_waves,
    product,
    row_norms,
    sums_halves,
    weighted_sums,
)
from rectilinear.core.ridge import Ridge
from rectilinear.errors import RectilinearError


def rows(n=64, d=40, dtype=torch.bfloat16):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_products_of_bfloat16_keep_every_digit():
    a = rows()
    found = product(a.T, a)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), a.double().T @ a.double(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("d", [1, 31, 40, 200])
def test_the_square_is_right_in_its_lower_triangle(d):
    a, total = rows(d=d, dtype=torch.float32), torch.ones(d, d, dtype=torch.float64)
    add_square(total, a)
    torch.testing.assert_close(total.tril(), (1 + a.double().T @ a.double()).tril(), rtol=1e-5, atol=1e-5)


def waves(ends, units):
    """Return how many times a device fills up with tiles of 128 by 256."""
    return sum(-(-(-(-(b - a) // 128) * -(-b // 256)) // units) for a, b in pairwise((0, *ends)))


@pytest.mark.parametrize("p", [1, 255, 256, 576, 2048, 4096, 5000, 8192])
@pytest.mark.parametrize("units", [1, 80, 108, 132])
def test_strips_on_a_gpu_take_no_more_waves_than_others(p, units):
    ends = in_waves(p, units)
    assert ends[-1] == p
    assert all(0 < a < b for a, b in pairwise(ends))
    alike = [(*range(p // n, (p // n) * n, p // n), p) for n in range(1, min(p, 9))] or [(p,)]
    assert waves(ends, units) <= min(waves(other, units) for other in alike)


def test_strips_of_4096_columns_take_three_waves_of_132_multiprocessors_not_four():
    assert waves(in_waves(4096, 132), 132) == 3
    assert waves((1024, 2048, 3072, 4096), 132) == waves((4096,), 132) == 4


def test_the_square_is_right_in_strips_of_unlike_widths(monkeypatch):
    ends = in_waves(700, 2)
    assert len(ends) > 1
    monkeypatch.setattr("rectilinear.core.products._strips", lambda p, device: ends)
    a, total = rows(d=700), torch.ones(700, 700, dtype=torch.float64)
    add_square(total, a)
    torch.testing.assert_close(total.tril(), (1 + a.double().T @ a.double()).tril(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sums_of_some_rows(dtype):
    a = rows(dtype=dtype)
    weights = (torch.arange(len(a)) % 3 > 0).to(dtype)
    some = a[weights > 0].double().sum(0)
    torch.testing.assert_close(weighted_sums(weights, a).double(), some, rtol=1e-5, atol=1e-5)


def test_distances_of_bfloat16_rows_to_a_center_are_not_rounded():
    center = torch.linspace(-3, 3, 40).bfloat16()
    a = rows() + center
    exact = (a.double() - center.double()).square().sum(1)
    torch.testing.assert_close(distances(a, row_norms(a), center.float()).double(), exact, rtol=1e-5, atol=1e-4)
    assert float(distances(center[None], row_norms(center[None]), center.float())) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("away", [0, 1, 3, 1000])
def test_distances_to_a_center_lose_no_digits_however_far_it_is(dtype, away):
    center = (torch.linspace(-1, 1, 40) + away).bfloat16()
    a = rows(dtype=dtype) + center
    exact = (a.double() - center.double()).square().sum(1)
    found = distances(a, row_norms(a), center.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-2 if dtype == torch.float16 else 1e-5, atol=1e-5)


def test_two_halves_hold_a_weight_to_sixteen_bits():
    weight = rows(40, 40, torch.float32)
    high, low = halves(weight)
    assert float(((high.double() + low.double() - weight) / weight).abs().max()) < 2**-16
    assert float((high.double() / weight - 1).abs().max()) > 2**-10


def test_what_a_map_misses_of_bfloat16_rows_is_not_rounded():
    x, z, weight = rows(), rows().flip(0), rows(40, 40, torch.float32)
    bias = torch.arange(40.0)
    exact = x.double() @ weight.double() + bias - z.double()
    known = AffineMap(weight.double(), bias.double())
    missed = known.miss(x, z)
    assert missed.dtype == torch.float32 and float((missed - exact).abs().max()) < 1e-3
    assert float((known(x) - z - exact).abs().max()) > 1e-2
    torch.testing.assert_close(missed, add_halves(bias - z, x, halves(weight)))
    torch.testing.assert_close(known.miss(x.double(), z.double()), exact)


def test_norms_of_half_precisions_do_not_overflow():
    big = torch.full((2, 64), 3e4, dtype=torch.float16)
    assert row_norms(big).tolist() == pytest.approx([2.4e5] * 2, rel=1e-3)
    assert row_norms(rows(dtype=torch.float64)).dtype == torch.float64


def test_a_cpu_does_not_multiply_halves():
    assert not sums_halves("cpu")


@pytest.mark.parametrize("made", [lambda: Moments.empty(2, 2, "mps"), lambda: Ridge(2, 2, device="mps")])
def test_a_device_without_float64_is_refused(made):
    with pytest.raises(RectilinearError, match=r"with float64 numbers, got mps.*use the device cpu"):
        made()
