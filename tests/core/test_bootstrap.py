import pytest
import torch

from rectilinear.core.bootstrap import draws, interval, mean_score_interval, ratio_interval, wilson_interval


def test_interval_covers_the_ratio_and_needs_two_blocks():
    g = torch.Generator().manual_seed(0)
    totals = torch.rand(200, generator=g) + 0.5
    errors = 0.3 * totals * (0.5 + torch.rand(200, generator=g))
    low, high = ratio_interval(errors, totals)
    assert low < 1 - float(errors.sum() / totals.sum()) < high
    assert ratio_interval(errors[:1], totals[:1]) == (None, None)
    assert ratio_interval(errors, totals) == (low, high)


def test_the_interval_of_a_mean_over_layers_is_that_of_a_layer_where_there_is_one():
    generator = torch.Generator().manual_seed(2)
    errors, totals = torch.rand(3, 40, generator=generator), 1 + torch.rand(3, 40, generator=generator)
    one = mean_score_interval(errors[:1], totals[:1], torch.tensor([0.9]), seed=5)
    assert one == pytest.approx(ratio_interval(errors[0], totals[0], scale=0.9, seed=5))
    low, high = mean_score_interval(errors, totals, torch.ones(3))
    assert low < float((1 - errors.sum(1) / totals.sum(1)).mean()) < high
    assert mean_score_interval(errors[:, :1], totals[:, :1], torch.ones(3)) == (None, None)


def test_layers_that_err_on_the_same_blocks_do_not_cancel():
    # Drawn apart, the layers' chances would average out; they saw the same documents, so they must not.
    errors, totals = torch.rand(1, 40, generator=torch.Generator().manual_seed(3)), torch.ones(1, 40)
    one, same = (mean_score_interval(errors.repeat(n, 1), totals.repeat(n, 1), torch.ones(n)) for n in (1, 20))
    assert same == pytest.approx(one)


def test_every_resample_draws_as_many_blocks_as_there_are():
    times = draws(7, seed=3)
    assert times.shape == (1000, 7) and bool((times.sum(1) == 7).all())
    assert torch.equal(times, draws(7, seed=3)) and not torch.equal(times, draws(7, seed=4))


def test_pairs_drawn_together_tell_a_small_difference_from_noise():
    g = torch.Generator().manual_seed(0)
    first = torch.randn(50, generator=g, dtype=torch.float64)
    second = first + 0.1 + 0.01 * torch.randn(50, generator=g, dtype=torch.float64)
    together, apart = draws(50, seed=0), draws(50, seed=1)
    low, high = interval((together @ second - together @ first) / 50)
    assert 0.09 < low < float((second - first).mean()) < high < 0.11
    low, high = interval((apart @ second - together @ first) / 50)
    assert low < 0 < high


def test_wilsons_interval_is_the_published_one_and_never_certain():
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(20, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)


def test_wilsons_interval_covers_where_the_bootstrap_does_not():
    """With a true share of 0.95 and 30 trials, the bootstrap of a perfect sample is a single point."""
    assert ratio_interval(torch.zeros(30), torch.ones(30)) == (1.0, 1.0)
    g = torch.Generator().manual_seed(0)
    hits = (torch.rand(2000, 30, generator=g) < 0.95).sum(1).tolist()
    covered = [low <= 0.95 <= high for low, high in (wilson_interval(h, 30) for h in hits)]
    assert 0.93 < sum(covered) / len(covered) < 0.99
