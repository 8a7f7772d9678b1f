"""Intervals against closed forms and coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, ttest_1samp

from wtdiag.diagnostics.comparison import intervals


def test_a_mean_is_students_interval():
    values = [0.1, 0.4, 0.45, 0.3]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert intervals.of_mean(values) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert intervals.of_mean([0.5, 0.5, 0.5]) == (0.5, 0.5)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_a_mean_is_covered_in_95_of_100_cases(n):
    """Percentiles of a bootstrap of 5 values cover 84 %."""
    draws = np.random.default_rng(0).normal(0.3, 1.0, (2000, n))
    inside = [low <= 0.3 <= high for low, high in map(intervals.of_mean, draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.01)  # two standard errors


@given(st.permutations([0.1, -0.2, 0.35, 0.05, 0.0]))
def test_the_order_of_seeds_does_not_matter(values):
    assert intervals.of_mean(values) == pytest.approx(intervals.of_mean([0.1, -0.2, 0.35, 0.05, 0.0]), rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.3]])
def test_fewer_than_two_have_no_interval(values):
    assert all(map(math.isnan, intervals.of_mean(values)))
    assert all(map(math.isnan, intervals.of_share_difference(np.array(values, bool), [True, False])))


def test_a_crossed_mean_of_columns_alone_or_of_rows_alone_is_students():
    values = np.random.default_rng(0).normal(0, 1, 6)
    by_column, by_row = np.tile(values, (4, 1)), np.tile(values[:, None], (1, 4))
    for table in (by_column, by_row, values[None]):
        assert intervals.of_crossed_mean(table) == pytest.approx(intervals.of_mean(values), rel=1e-9)


def test_the_order_of_rows_and_columns_does_not_matter():
    rng = np.random.default_rng(0)
    values, less = rng.normal(0, 1, (3, 1)) + rng.normal(0, 0.5, (3, 3)), rng.normal(0, 0.5, (2, 3))
    found = intervals.of_crossed_mean(values, less)
    shuffled = intervals.of_crossed_mean(values[[2, 0, 1]][:, [1, 2, 0]], less[::-1][:, [1, 2, 0]])
    assert shuffled == pytest.approx(found, rel=1e-12)
    assert intervals.of_crossed_mean(less, values) == pytest.approx((-found[1], -found[0]), rel=1e-12)


def test_a_known_variance_widens_a_crossed_mean():
    table = np.random.default_rng(0).normal(0, 1e-6, (5, 5))
    low, high = intervals.of_crossed_mean(table, variance=0.01)
    assert (low, high) == pytest.approx((-0.196, 0.196), abs=1e-3)


def test_pairs_of_columns_fall_out_of_a_crossed_mean():
    seeds = np.random.default_rng(0).normal(0, 1, (1, 5))
    assert intervals.of_crossed_mean(seeds + np.full((3, 1), 0.25), seeds) == pytest.approx((0.25, 0.25))


def test_a_single_row_is_the_mean_over_columns():
    values = [0.1, 0.4, 0.45, 0.2, 0.0]
    assert intervals.of_crossed_mean([values]) == pytest.approx(intervals.of_mean(values), abs=0.005)


@pytest.mark.parametrize(
    ("rows", "of_rows", "of_columns", "of_rest"),
    [(5, 1, 0.1, 0.1), (5, 1, 1, 0.1), (5, 1, 1, 1), (360, 0.1, 0.02, 0.2), (360, 0, 0, 1)],
)
def test_a_crossed_mean_is_covered(rows, of_rows, of_columns, of_rest):
    rng, inside = np.random.default_rng(0), []
    for _ in range(400):
        table = (
            0.3 + rng.normal(0, of_rows, (rows, 1)) + rng.normal(0, of_columns, 5) + rng.normal(0, of_rest, (rows, 5))
        )
        low, high = intervals.of_crossed_mean(table)
        inside.append(low <= 0.3 <= high)
    assert np.mean(inside) >= 0.925  # two standard errors below 95 %


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


def test_a_difference_of_shares_of_all_and_none_is_not_certain():
    """Newcombe 1998, method 10, for 10 of 10 against 0 of 20."""
    low, high = intervals.of_share_difference([True] * 10, [False] * 20)
    assert (low, high) == pytest.approx((0.6791, 1.0), abs=1e-4)
