import pytest
import torch

from rectilinear.core.linear import Change, fit
from rectilinear.core.moments import Moments


@pytest.fixture(scope="module")
def maps():
    """Two maps, of 400 ordinary rows and of these with 5 far ones, and the rows of both."""
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(405, 24, generator=g).double(), torch.randn(24, 24, generator=g).double()
    x[400:, 3] += 300
    z = torch.tanh(x @ weight)
    z[400:] *= 100
    found = []
    for count in (400, 405):
        m = Moments.empty(24, 24)
        m.update(x[:count], z[:count])
        found.append(fit(m))
    return *found, x, z


def test_maps_that_differ_by_a_few_rows_differ_by_as_many_directions(maps):
    first, then, _, _ = maps
    change = Change.between(first, then, 5)
    assert change.left.shape == (24, 5) and change.right.shape == (5, 24)
    assert float((then.weight - first.weight).norm()) > 0.1 * float(first.weight.norm())
    after = change.after(first)
    torch.testing.assert_close(after.weight, then.weight, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after.bias, then.bias)


@pytest.mark.parametrize("rank", [4, 7])  # too few directions; no longer thin
def test_maps_that_differ_by_more_are_not_told_apart_thinly(maps, rank):
    assert Change.between(*maps[:2], rank) is None


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
def test_what_one_map_misses_becomes_what_the_other_misses(maps, dtype, bound):
    first, then, x, z = maps
    x, z = x.to(dtype), z.to(dtype)
    change = Change.between(first, then, 5)
    work = torch.float64 if dtype == torch.float64 else torch.float32  # as maps judge
    exact = then.miss(x.double(), z.double())
    found = change.to(work).miss_(first.to(work).miss(x, z), x)
    assert found.dtype == work
    assert float((found - exact).abs().max()) < bound < 0.1 * float((first.miss(x, z) - exact).abs().max())
