import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from rectilinear.core.linear import error_of, fit, residual, scores
from rectilinear.core.moments import EPS32, EPS_HALF, Moments
from rectilinear.errors import ResultError


def rows(n=400, d=12, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=dtype)
    return x, 0.3 * torch.tanh(x @ torch.randn(d, d, generator=g, dtype=dtype))


def moments(x, z, **options):
    m = Moments.empty(x.shape[1], z.shape[1])
    m.update(x, z, **options)
    return m


def test_scores_are_the_variance_weighted_r2_of_least_squares():
    x, z = rows()
    for target, ours in ((x + z, scores(moments(x, z)).score), (z, scores(moments(x, z)).increment)):
        predicted = LinearRegression().fit(x, target).predict(x)
        assert ours == pytest.approx(r2_score(target, predicted, multioutput="variance_weighted"), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 399), min_size=1, max_size=5, unique=True), st.booleans())
def test_any_split_merges_to_the_whole(cuts, backwards):
    x, z = rows()
    x = x + 50
    parts = [moments(a, b) for a, b in zip(x.tensor_split(sorted(cuts)), z.tensor_split(sorted(cuts)), strict=True)]
    merged = Moments.empty(12, 12)
    for part in reversed(parts) if backwards else parts:
        merged = merged.merge(part)
    whole = moments(x, z)
    assert merged.n == whole.n
    for name in ("mean_x", "mean_z", "sxx", "sxz", "szz", "syy"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-10, atol=1e-10)
    assert scores(merged).increment == pytest.approx(scores(whole).increment, abs=1e-10)


def test_float32_products_stay_within_the_stated_bound_where_uncentred_ones_fail():
    x, z = rows(n=4000, d=24, dtype=torch.float32)
    x, z = x + 300, z * 1e-2
    exact = scores(moments(x.double(), z.double()))
    ours = Moments.empty(24, 24)
    for a, b in zip(x.split(500), z.split(500), strict=True):
        ours.update(a, b)
    assert ours.eps == EPS32
    assert scores(ours).increment == pytest.approx(exact.increment, abs=3e-7)
    assert scores(ours).score == pytest.approx(exact.score, abs=3e-7)
    raw = x.T @ x - len(x) * torch.outer(x.mean(0), x.mean(0))  # the naive formula in float32
    cross = x.T @ z - len(x) * torch.outer(x.mean(0), z.mean(0))
    naive = (
        1
        - (z - z.mean(0) - (x - x.mean(0)) @ torch.linalg.solve(raw, cross)).square().sum()
        / (z - z.mean(0)).square().sum()
    )
    assert abs(float(naive) - exact.increment) > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_increment_score_is_invariant_to_scale_shift_and_invertible_maps_of_x(seed, scale, shift):
    x, z = rows(seed=seed)
    base = scores(moments(x, z)).increment
    mix = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q * torch.linspace(0.5, 2, 12, dtype=torch.float64)
    assert 0 <= base <= 1
    assert scores(moments(x @ mix * scale + shift, z)).increment == pytest.approx(base, abs=1e-8)
    assert scores(moments(x, z * scale + shift)).increment == pytest.approx(base, abs=1e-8)


def test_noise_scores_one_below_d_rows_and_half_at_twice_d():
    g = torch.Generator().manual_seed(0)
    x, z = (torch.randn(64, 64, generator=g, dtype=torch.float64) for _ in range(2))
    assert scores(moments(x[:40], z[:40])).increment == pytest.approx(1.0)
    x, z = (torch.randn(256, 128, generator=g, dtype=torch.float64) for _ in range(2))
    assert scores(moments(x, z)).increment == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_degenerate_rows_give_defined_results(dtype):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=g).to(dtype)
    x[:, 1] = 3.7  # constant
    x[:, 2] = 2 * x[:, 0]  # dependent
    x[:, 3] = 0
    z = (x.float() @ torch.ones(6, 6) + torch.randn(200, 6, generator=g)).to(dtype)
    m = moments(x, z)
    reference = z.double() - LinearRegression().fit(x.double(), z.double()).predict(x.double())
    assert residual(m) == pytest.approx(float((reference**2).sum()), rel=1e-4)
    assert torch.isfinite(fit(m).weight).all()
    assert scores(moments(torch.zeros(5, 3), torch.zeros(5, 3))).score is None
    assert scores(Moments.empty(3, 3)).increment is None
    assert scores(moments(torch.zeros(5, 3), torch.eye(5)[:, :3])).increment == pytest.approx(0, abs=1e-12)
    assert scores(moments(torch.ones(1, 3), torch.ones(1, 3))).score is None


@pytest.mark.parametrize(("mean", "shifted"), [(0.03, False), (0.15, False), (0.3, True), (300, True)])
def test_contributions_in_float32_are_shifted_where_their_mean_is_large(mean, shifted):
    x, z = rows(n=4000, d=24, dtype=torch.float32)
    z = z / z.std() * 0.3 + mean
    exact = scores(moments(x.double(), z.double()))
    ours = Moments.empty(24, 24)
    for a, b in zip(x.split(500), z.split(500), strict=True):
        ours.update(a, b)
    assert bool(ours.shift_z.any()) == shifted
    assert scores(ours).increment == pytest.approx(exact.increment, abs=3e-7)
    assert scores(ours).score == pytest.approx(exact.score, abs=3e-7)


def test_bfloat16_rows_are_multiplied_as_they_are():
    x, z = (rows.bfloat16() for rows in rows(n=4096, d=48))
    exact = scores(moments(x.double(), z.double()))
    ours = moments(x, z)
    assert ours.eps == EPS_HALF
    torch.testing.assert_close(ours.sxz, moments(x, z, exact=True).sxz, rtol=1e-5, atol=1e-3)
    assert scores(ours).increment == pytest.approx(exact.increment, abs=1e-6)
    assert scores(ours).score == pytest.approx(exact.score, abs=1e-6)


def test_bfloat16_columns_far_from_zero_are_shifted_and_lose_no_digits():
    x, z = (rows.bfloat16() for rows in rows(n=4096, d=8))
    x[:, 0] = 1000 + 4 * x[:, 0].round()  # steps that bfloat16 has there
    near = moments(x.double(), z.double())
    ours = Moments.empty(8, 8)
    for a, b in zip(x.split(512), z.split(512), strict=True):
        ours.update(a, b)
    assert ours.shift_x[0] == pytest.approx(1000, abs=8) and not ours.shift_x[1:].any()
    torch.testing.assert_close(ours.sxx, near.sxx, rtol=1e-5, atol=1e-2)
    assert scores(ours).increment == pytest.approx(scores(near).increment, abs=1e-6)


def test_bfloat16_rows_left_out_are_not_counted_and_stay_as_they_were():
    x, z = (rows.bfloat16() for rows in rows(n=600, d=8))
    x[::7] *= 1000
    before, out = x.clone(), torch.arange(600) % 7 == 0
    kept, ours = moments(x[~out], z[~out]), moments(x, z, leave_out=out)
    assert ours.n == kept.n and torch.equal(x, before)
    torch.testing.assert_close(ours.sxx, kept.sxx, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(ours.szz, kept.szz)


def test_huge_offset_costs_no_digits():
    x, z = rows()
    base = scores(moments(x, z)).increment
    assert scores(moments(x + 1e6, z - 1e6)).increment == pytest.approx(base, abs=1e-8)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize("offset", [0, 5])
def test_rows_left_out_do_not_count(dtype, bound, offset):
    x, z = rows(dtype=dtype)
    z = z + offset
    out = torch.zeros(400, dtype=torch.bool)
    out[::7] = True
    x[out] *= 1e4
    z[out] *= 1e4
    left, kept = moments(x, z, leave_out=out), moments(x[~out], z[~out])
    a, b = scores(left), scores(kept)
    assert left.n == kept.n and a.increment == pytest.approx(b.increment, abs=bound)
    assert abs(a.increment - scores(moments(x, z)).increment) > 1e-4  # they would have counted
    for name in ("mean_x", "mean_z", "szz", "syy"):
        torch.testing.assert_close(getattr(left, name), getattr(kept, name), rtol=1e-5, atol=1e-5)
    assert torch.equal(left.szz, moments(x, z, leave_out=out, z_norm=z.norm(dim=1)).szz)


def test_heldout_error_from_moments_alone():
    x, z = rows()
    fitted = fit(moments(x[:300], z[:300]))
    direct = float((z[300:] - fitted(x[300:])).square().sum())
    assert error_of(fitted, moments(x[300:], z[300:])) == pytest.approx(direct, rel=1e-10)


def test_ridge_and_rank():
    x, z = rows()
    m = moments(x, z)
    errors = [error_of(fit(m, ridge=r), m) for r in (0, 0.1, 10, 1e6)]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(residual(m))
    assert errors[-1] == pytest.approx(float(m.szz), rel=1e-3)
    ranks = [error_of(fit(m, rank=r), m) for r in (0, 2, 6, 12)]
    assert ranks == sorted(ranks, reverse=True)
    assert torch.linalg.matrix_rank(fit(m, rank=2).weight) == 2
    # Reduced-rank regression beats cutting the singular values of the full map.
    u, s, v = torch.linalg.svd(fit(m).weight)
    cut = (u[:, :2] * s[:2]) @ v[:2]
    plain = z - z.mean(0) - (x - x.mean(0)) @ cut
    assert ranks[1] <= float(plain.square().sum()) + 1e-9


def test_saved_moments_come_back_and_damage_is_named(tmp_path):
    m = moments(*rows())
    m.save(tmp_path / "m.safetensors")
    back = Moments.load(tmp_path / "m.safetensors")
    assert back.n == m.n
    assert torch.equal(back.xx.tril(), m.xx.tril())
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    for name in ("bad", "missing"):
        with pytest.raises(ResultError, match=f"{name}|without"):
            Moments.load(tmp_path / f"{name}.safetensors")


def test_of_a_symmetric_product_only_the_triangle_is_kept(tmp_path):
    m = moments(*rows(d=40))
    m.save(tmp_path / "m.safetensors")
    assert (tmp_path / "m.safetensors").stat().st_size < 8 * (40 * 41 / 2 + 40 * 40 + 4 * 40) + 1000
    back = Moments.load(tmp_path / "m.safetensors")
    assert torch.equal(back.sxx, m.sxx) and back.eps == m.eps
    assert residual(back) == residual(m)
    whole = {**m.to_tensors(), "xx": m.xx}
    with pytest.raises(ResultError, match="triangle of 40 columns"):
        Moments.from_tensors(whole)


def test_a_disk_that_refuses_is_named(tmp_path):
    with pytest.raises(ResultError, match=r"cannot write .*gone"):
        moments(*rows()).save(tmp_path / "gone" / "m.safetensors")


def test_rows_that_came_later_are_those_not_there_before():
    x, z = rows()
    x, z = (x + 50).float(), (z - 7).float()
    m = moments(x[:300], z[:300])
    earlier = m.copy()
    m.update(x[300:], z[300:])
    later, alone = m.since(earlier), moments(x[300:], z[300:])
    assert later.n == 100 and later.eps == EPS32
    for name in ("mean_x", "mean_z", "sxx", "sxz", "szz"):
        assert torch.allclose(getattr(later, name), getattr(alone, name), rtol=1e-5, atol=1e-4)
    assert torch.allclose(earlier.merge(later).sxx, m.sxx, rtol=1e-12)
    assert m.since(Moments.empty(12, 12)).n == 400 and m.since(m).n == 0
    for other in (alone, m.merge(m)):
        with pytest.raises(ValueError, match="earlier moments of the same 400 rows"):
            m.since(other)
