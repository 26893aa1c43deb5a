import torch

from rectilinear.core.bootstrap import ratio_interval


def test_interval_covers_the_ratio_and_needs_two_blocks():
    g = torch.Generator().manual_seed(0)
    totals = torch.rand(200, generator=g) + 0.5
    errors = 0.3 * totals * (0.5 + torch.rand(200, generator=g))
    low, high = ratio_interval(errors, totals)
    assert low < 1 - float(errors.sum() / totals.sum()) < high
    assert ratio_interval(errors[:1], totals[:1]) == (None, None)
    assert ratio_interval(errors, totals) == (low, high)
