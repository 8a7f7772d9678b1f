"""Intervals against enumeration, closed forms and coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from wtdiag.diagnostics.comparison import intervals


def test_a_mean_of_three_against_all_resamplings():
    values = [0.1, 0.4, 0.45]
    means = [np.mean(draw) for draw in itertools.product(values, repeat=3)]
    low, high = intervals.of_mean(values)
    assert low == pytest.approx(np.quantile(means, 0.025, method="inverted_cdf"))
    assert high == pytest.approx(np.quantile(means, 0.975, method="inverted_cdf"))


def test_many_values_give_the_normal_interval():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    half = 1.96 * values.std() / 20
    np.testing.assert_allclose(intervals.of_mean(values), (values.mean() - half, values.mean() + half), atol=0.01)


@pytest.mark.parametrize(("n", "share"), [(5, 0.85), (20, 0.93)])
def test_a_mean_covers_as_often_as_is_said(n, share):
    draws = np.random.default_rng(0).normal(0.3, 1.0, (300, n))
    inside = [low <= 0.3 <= high for low, high in map(intervals.of_mean, draws)]
    assert np.mean(inside) == pytest.approx(share, abs=0.04)  # two standard errors


@given(st.permutations([0.1, -0.2, 0.35, 0.05, 0.0]))
def test_the_order_of_seeds_does_not_matter(values):
    assert intervals.of_mean(values) == intervals.of_mean([0.1, -0.2, 0.35, 0.05, 0.0])


@pytest.mark.parametrize("values", [[], [0.3]])
def test_fewer_than_two_have_no_interval(values):
    assert all(map(math.isnan, intervals.of_mean(values)))
    assert all(map(math.isnan, intervals.of_share_difference(np.array(values, bool), [True, False])))


def draws(table):
    """Return the mean of every resampling of a table's rows, by resampling of its columns."""
    rows, columns = (list(itertools.product(range(size), repeat=size)) for size in table.shape)
    return np.array([[table[np.ix_(of, over)].mean() for of in rows] for over in columns])


def test_a_crossed_mean_against_all_resamplings():
    rng = np.random.default_rng(0)
    values, less = rng.normal(0, 1, (3, 1)) + rng.normal(0, 0.5, (3, 3)), rng.normal(0, 0.5, (2, 3))
    of, of_less = draws(values), draws(less)
    found = intervals.of_crossed_mean(values)
    np.testing.assert_allclose(found, np.quantile(of, (0.025, 0.975)), atol=0.03)
    difference = of[:, :, None] - of_less[:, None, :]  # drawn together: seeds; by themselves: configurations
    found = intervals.of_crossed_mean(values, less)
    np.testing.assert_allclose(found, np.quantile(difference, (0.025, 0.975)), atol=0.03)
    assert intervals.of_crossed_mean(less, values) == pytest.approx((-found[1], -found[0]), abs=0.03)
    shuffled = intervals.of_crossed_mean(values[[2, 0, 1]][:, [1, 2, 0]], less[::-1][:, [1, 2, 0]])
    assert shuffled == pytest.approx(found, rel=1e-12)


def test_pairs_of_columns_fall_out_of_a_crossed_mean():
    seeds = np.random.default_rng(0).normal(0, 1, (1, 5))
    assert intervals.of_crossed_mean(seeds + np.full((3, 1), 0.25), seeds) == pytest.approx((0.25, 0.25))


def test_a_single_row_is_the_mean_over_columns():
    values = [0.1, 0.4, 0.45, 0.2, 0.0]
    assert intervals.of_crossed_mean([values]) == pytest.approx(intervals.of_mean(values), abs=0.005)


@pytest.mark.parametrize(("rows", "share"), [(3, 0.74), (10, 0.89)])
def test_a_crossed_mean_covers_as_often_as_is_said(rows, share):
    rng = np.random.default_rng(0)
    tables = 0.3 + rng.normal(0, 1, (300, rows, 1)) + rng.normal(0, 0.01, (300, rows, 5))
    inside = [low <= 0.3 <= high for low, high in map(intervals.of_crossed_mean, tables)]
    assert np.mean(inside) == pytest.approx(share, abs=0.05)  # two standard errors


@pytest.mark.parametrize("shape", [(0, 5), (3, 1), (3, 0)])
def test_a_table_without_rows_or_pairs_of_columns_has_no_interval(shape):
    assert all(map(math.isnan, intervals.of_crossed_mean(np.zeros(shape))))


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (3, 10), (29, 30)])
def test_a_share_is_the_exact_interval(count, of):
    """At each bound the binomial tail beyond the count is 2.5 %, by definition."""
    low, high = intervals.of_share(count, of)
    assert low == 0 if count == 0 else binom.sf(count - 1, of, low) == pytest.approx(0.025)
    assert high == 1 if count == of else binom.cdf(count, of, high) == pytest.approx(0.025)


def test_a_share_of_nothing():
    assert all(map(math.isnan, intervals.of_share(0, 0)))


def test_a_difference_of_shares_against_the_normal_interval():
    first, second = np.arange(400) < 280, np.arange(300) < 120
    half = 1.96 * math.sqrt(0.7 * 0.3 / 400 + 0.4 * 0.6 / 300)
    low, high = intervals.of_share_difference(first, second)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.01)
    assert intervals.of_share_difference(second, first) == pytest.approx((-high, -low), abs=0.01)
    assert intervals.of_share_difference(first[::-1], second) == (low, high)
