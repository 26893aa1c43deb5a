import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Oracle

from rectilinear.core.ridge import Ridge


def rows(n=300, f=10, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, f, generator=g)
    r = a @ torch.randn(f, d, generator=g) + 0.1 * torch.randn(n, d, generator=g) + 2
    return a, r, torch.rand(n, generator=g)


def gathered(parts, intercept):
    sums = Ridge(10, 4, intercept=intercept)
    for a, r, w in parts:
        sums.update(a, r, w)
    return sums


@pytest.mark.parametrize("intercept", [False, True])
def test_the_solution_is_weighted_ridge_regression(intercept):
    a, r, w = rows()
    weight, bias = gathered([(a, r, w)], intercept).solve(0.1)
    penalty = 0.1 * float((w[:, None] * a.square()).sum(0).mean())
    oracle = Oracle(alpha=penalty, fit_intercept=intercept).fit(a.numpy(), r.numpy(), sample_weight=w.numpy())
    np.testing.assert_allclose(weight.T, oracle.coef_, atol=1e-4)
    if intercept:
        np.testing.assert_allclose(bias, oracle.intercept_, atol=1e-4)
    else:
        assert bias is None


def test_batches_add_up_to_the_whole():
    a, r, w = rows()
    whole, _ = gathered([(a, r, w)], True).solve(0.01)
    parts, _ = gathered(zip(a.split(70), r.split(70), w.split(70), strict=True), True).solve(0.01)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


def test_an_endless_ridge_changes_nothing_and_no_rows_are_no_news():
    a, r, w = rows()
    assert float(gathered([(a, r, w)], False).solve(1e9)[0].abs().max()) < 1e-6
    assert float(Ridge(10, 4).solve(0.1)[0].abs().max()) == 0


def test_weightless_rows_do_not_count():
    a, r, w = rows()
    w[150:] = 0
    half, _ = gathered([(a[:150], r[:150], w[:150])], False).solve(0.1)
    all_, _ = gathered([(a, r, w)], False).solve(0.1)
    torch.testing.assert_close(all_, half, atol=1e-5, rtol=1e-5)


def test_of_all_maps_of_a_rank_none_has_a_smaller_error():
    a, r, w = rows()
    sums = gathered([(a, r, w)], True)

    def error(weight, bias):
        return float((w.double()[:, None] * (r.double() - a.double() @ weight - bias).square()).sum())

    full, low = sums.solve(1e-9), sums.solve(1e-9, rank=2)
    assert torch.linalg.matrix_rank(low[0]) == 2
    u, s, v = torch.linalg.svd(full[0], full_matrices=False)
    cut = (u[:, :2] * s[:2]) @ v[:2]  # the best of rank 2 for the weights is not the best for the fitted values
    bias = (w.double()[:, None] * (r.double() - a.double() @ cut)).sum(0) / w.double().sum()
    assert error(*full) < error(*low) < error(cut, bias)
    torch.testing.assert_close(sums.solve(1e-9, rank=4)[0], full[0], atol=1e-8, rtol=1e-6)
