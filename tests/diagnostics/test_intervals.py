"""Intervals against enumeration, closed forms and coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from diagnostics import intervals


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
