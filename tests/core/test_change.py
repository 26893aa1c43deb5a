import pytest
import torch

from rectilinear.core.linear import AffineMap, Change, fit, fit_both
from rectilinear.core.moments import Moments


def moments(x, z):
    m = Moments.empty(x.shape[1], z.shape[1])
    m.update(x, z)
    return m


def rows(few=5, far=300.0):
    """Return 400 rows and `few` more that lie far out and follow another map, [400 + few, 24]."""
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(400 + few, 24, generator=g).double(), torch.randn(24, 24, generator=g).double()
    x[400:, 3] += far
    z = torch.tanh(x @ weight)
    z[400:] *= far / 3
    return x, z


@pytest.mark.parametrize("few", [1, 2, 6])
@pytest.mark.parametrize("far", [3, 300, 1e5])
def test_the_map_of_a_few_rows_more_is_a_thin_change(few, far):
    x, z = rows(few, far)
    first, change = fit_both(moments(x[:400], z[:400]), moments(x[400:], z[400:]))
    expected = fit(moments(x, z))
    assert isinstance(change, Change) and change.left.shape == (24, few + 1)
    assert torch.equal(first.weight, fit(moments(x[:400], z[:400])).weight)
    torch.testing.assert_close(change.left.T @ change.left, torch.eye(few + 1).double())  # nothing cancels in float32
    after = change.after(first)
    assert float((expected.weight - first.weight).norm()) > 0.01 * float(first.weight.norm())
    torch.testing.assert_close(after.weight, expected.weight, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(after.bias, expected.bias, rtol=1e-6, atol=1e-8)


def test_rows_alike_change_the_map_as_well():
    x, z = rows(6)
    x[400:], z[400:] = x[400], z[400]
    first, change = fit_both(moments(x[:400], z[:400]), moments(x[400:], z[400:]))
    torch.testing.assert_close(change.after(first).weight, fit(moments(x, z)).weight, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", ["many", "constant column", "fewer rows than columns"])
def test_where_a_change_would_not_be_thin_or_exact_the_map_is_fitted_whole(case):
    x, z = rows(7 if case == "many" else 5)
    start = 390 if case == "fewer rows than columns" else 0
    if case == "constant column":
        x[:400, 3] = 2
    _, both = fit_both(moments(x[start:400], z[start:400]), moments(x[400:], z[400:]))
    expected = fit(moments(x[start:], z[start:]))
    assert isinstance(both, AffineMap)
    torch.testing.assert_close(both.weight, expected.weight, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 1e-3), (torch.bfloat16, 3e-2)])
def test_what_one_map_misses_becomes_what_the_other_misses(dtype, bound):
    x, z = rows()
    first, change = fit_both(moments(x[:400], z[:400]), moments(x[400:], z[400:]))
    then = fit(moments(x, z))
    x, z = x.to(dtype), z.to(dtype)
    work = torch.float64 if dtype == torch.float64 else torch.float32  # as maps judge
    exact = then.miss(x.double(), z.double())
    found = change.to(work).miss_(first.to(work).miss(x, z), x)
    assert found.dtype == work
    assert float((found - exact).abs().max()) < bound < 0.1 * float((first.miss(x, z) - exact).abs().max())
