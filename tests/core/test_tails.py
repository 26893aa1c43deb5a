import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rectilinear.core.tails import BINS_PER_OCTAVE, LogHistogram
from rectilinear.errors import NonFiniteError, ResultError

WIDTH = 2 ** (1 / BINS_PER_OCTAVE)  # the promised 2.2 %
magnitudes = st.lists(st.floats(0, 1e6, width=32).filter(lambda v: v == 0 or v > 1e-9), min_size=1, max_size=60)


def gathered(*parts):
    histogram = LogHistogram()
    for part in parts:
        histogram.update(torch.as_tensor(part))
    return histogram


def pareto(index, n=20_000, seed=0):
    return 1 + np.random.default_rng(seed).pareto(index, n)


def exact_share(values, fraction):
    squares = np.sort(np.square(values))[::-1]
    return squares[: math.ceil(fraction * len(squares))].sum() / squares.sum()


def exact_hill(values, fraction):
    worst = np.sort(values)[::-1]
    k = math.ceil(fraction * len(worst))
    return 1 / np.log(worst[:k] / worst[k]).mean()


def assert_same(a, b):
    assert torch.equal(a.counts, b.counts)
    torch.testing.assert_close(a.squares, b.squares, rtol=1e-12, atol=0)
    assert (a.smallest, a.largest) == (b.smallest, b.largest)


@pytest.mark.parametrize("q", [0.0, 0.001, 0.5, 0.9, 0.99, 0.9999, 1.0])
def test_quantiles_are_within_a_bin_of_numpys(q):
    values = np.random.default_rng(1).lognormal(0, 2, 5_000)
    expected = np.quantile(values, q, method="inverted_cdf")
    assert expected / WIDTH <= gathered(values).quantile(q) <= expected * WIDTH


@given(magnitudes, st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_any_quantile_lies_within_a_bin_and_rises_with_q(values, q):
    histogram = gathered(torch.tensor(values))
    k = max(math.ceil(round(q * len(values), 6)), 1)
    expected = sorted(values)[k - 1]
    assert expected / WIDTH <= histogram.quantile(q) * (1 + 1e-9) and histogram.quantile(q) <= expected * WIDTH
    assert histogram.smallest <= histogram.quantile(q / 2) <= histogram.quantile(q) <= histogram.max


@given(magnitudes, magnitudes, magnitudes)
@settings(deadline=None, max_examples=40)
def test_merging_in_any_grouping_equals_the_whole(a, b, c):
    first, second, third = (gathered(torch.tensor(part)) for part in (a, b, c))
    whole = gathered(torch.tensor(a + b + c))
    assert_same(first.merge(second).merge(third), whole)
    assert_same(first.merge(second.merge(third)), whole)
    assert first.count == len(a)  # the merged ones are left as they were


def test_plain_figures_are_exact():
    values = np.random.default_rng(2).gamma(2, 3, 3_000)
    histogram = gathered(values[:1_000], values[1_000:])
    assert histogram.count == 3_000
    assert histogram.sum_of_squares == pytest.approx(np.square(values).sum(), rel=1e-12)
    assert (histogram.smallest, histogram.max) == (values.min(), values.max())


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("index", [2.5, 4.0, 20.0])
def test_share_of_worst_equals_the_sorted_share(fraction, index):
    values = pareto(index)
    assert gathered(values).share_of_worst(fraction) == pytest.approx(exact_share(values, fraction), rel=0.01)


def test_share_of_worst_is_exact_where_values_are_apart_or_alike():
    powers = 2.0 ** np.arange(10)
    assert gathered(powers).share_of_worst(0.1) == pytest.approx(exact_share(powers, 0.1), rel=1e-14)
    assert gathered(np.full(100, 3.0)).share_of_worst(0.07) == pytest.approx(0.07, rel=1e-12)
    assert gathered(powers).share_of_worst(1.0) == pytest.approx(1, rel=1e-14)
    assert gathered(powers).share_of_worst(0.0) == 0


@pytest.mark.parametrize("index", [1.0, 2.0, 5.0, 20.0])
def test_tail_index_equals_hills_and_finds_the_pareto_exponent(index):
    values = pareto(index)
    found = gathered(values).tail_index(0.05)
    assert found == pytest.approx(exact_hill(values, 0.05), rel=0.02)
    assert found == pytest.approx(index, rel=0.1)  # three standard errors of 1,000 values


def test_tail_index_does_not_change_with_the_unit():
    values = pareto(3.0)
    assert gathered(values * 1024).tail_index() == pytest.approx(gathered(values).tail_index(), rel=1e-12)
    assert gathered(values * 1.3).tail_index() == pytest.approx(gathered(values).tail_index(), rel=0.01)


def test_tail_index_is_none_without_a_tail():
    assert gathered(pareto(2.0, 100)).tail_index(0.05) is None
    assert gathered(np.full(1_000, 2.0)).tail_index() is None
    assert gathered(np.r_[np.zeros(1_000), pareto(2.0, 20)]).tail_index(0.05) is None


def test_zeros_have_their_own_bin_and_extremes_the_end_bins():
    histogram = gathered([0.0, 0.0, 2.0**-100, 2.0**100])
    assert histogram.counts[[0, 1, -1]].tolist() == [2, 1, 1]
    assert histogram.quantile(0.4) == 0
    assert (histogram.smallest, histogram.max) == (0, 2.0**100)
    assert gathered([0.0, 0.0]).share_of_worst(0.5) is None


def test_empty_has_no_figures():
    empty = gathered([])
    assert (empty.count, empty.sum_of_squares) == (0, 0)
    assert {empty.max, empty.quantile(0.0), empty.quantile(0.5), empty.share_of_worst(0.1), empty.tail_index()} == {
        None
    }
    whole = gathered([1.0, 2.0])
    assert_same(empty.merge(whole), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_input_precision_does_not_matter(dtype):
    values = torch.rand(500, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert_same(gathered(values), gathered(values.double()))


def test_bad_values_are_refused_and_nothing_is_added():
    histogram = gathered([1.0])
    for bad in (math.nan, math.inf):
        with pytest.raises(NonFiniteError):
            histogram.update(torch.tensor([2.0, bad]))
    with pytest.raises(ValueError, match="at least 0"):
        histogram.update(torch.tensor([2.0, -1.0]))
    assert_same(histogram, gathered([1.0]))
    with pytest.raises(ValueError, match="from 0 to 1"):
        histogram.quantile(50)


def test_coarse_histogram_keeps_every_value_but_zeros():
    values = np.random.default_rng(3).lognormal(0, 1, 1_000)
    counts, edges = gathered(np.r_[values, 0.0]).histogram(bins_per_octave=4)
    assert len(edges) == len(counts) + 1
    np.testing.assert_array_equal(counts, np.histogram(values, edges)[0])
    with pytest.raises(ValueError, match="divisor"):
        LogHistogram().histogram(bins_per_octave=5)


def test_saved_tensors_come_back():
    histogram = gathered(pareto(2.0, 100))
    saved = histogram.to_tensors()
    restored = LogHistogram.from_tensors(saved)
    histogram.update(torch.ones(3))
    assert_same(restored, gathered(pareto(2.0, 100)))
    with pytest.raises(ResultError, match="squares"):
        LogHistogram.from_tensors({"counts": saved["counts"]})
    with pytest.raises(ResultError, match="bins"):
        LogHistogram.from_tensors(saved | {"counts": torch.zeros(3)})
