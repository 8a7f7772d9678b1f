"""Sums over rows against numpy's, entry by entry; zeros, block edges, every layout and several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from wtdiag.probes.kernels.comparison import compare
from wtdiag.probes.kernels.row_sums import row_sums

RNG = np.random.default_rng(0)


def by_numpy(first, second):
    a, b = first.astype(np.longdouble), second.astype(np.longdouble)
    sign = np.sign(a) * np.sign(b)
    terms = (a * a, b * b, a * b, abs(sign), sign, abs(a * sign), abs(a) * sign, (a * sign) ** 2)
    return [term.sum(axis=1).astype(np.float64) for term in terms]


@pytest.mark.parametrize("width", [0, 1, 7, 2047, 2048, 2049, 5000])  # a block has 2048
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("zeros", [0, 0.5])
def test_sums_are_those_of_numpy(width, dtype, zeros):
    first, second = RNG.normal(size=(2, 3, width)).astype(dtype)
    for array in (first, second):
        array[RNG.random(array.shape) < zeros] = RNG.choice([0.0, -0.0])
    rows, whole = row_sums(first, second)
    expected = by_numpy(first, second)
    for name, got, right in zip(rows._fields, rows, expected, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-13, atol=1e-12 * max(width, 1) ** 0.5, err_msg=name)
        assert getattr(whole, name) == pytest.approx(right.sum(), rel=1e-12, abs=1e-10)


def test_signs_of_products_below_the_range_of_float64():
    first, second = np.full((1, 5), 1e-200), np.array([[1e-200, -1e-200, 1e-200, 1e-200, 0.0]])
    assert compare(first, second).sign_agreement == 0.75
    assert compare(first, second).pairs == 4


def test_entries_that_are_not_finite_stay_in_their_row():
    first = RNG.normal(size=(3, 10))
    first[1, 4] = np.nan
    first[2, 4] = np.inf
    rows, _ = row_sums(first, np.ones((3, 10)))
    assert np.isfinite(rows.first_squares).tolist() == [True, False, False]
    assert np.isfinite(rows.products).tolist() == [True, False, False]


@pytest.mark.parametrize("dtype", [np.float16, np.dtype(">f4"), np.int8, np.int64, np.longdouble])
def test_other_types_are_compared_by_value(dtype):
    first, second = (RNG.integers(-5, 6, (2, 4, 9))).astype(dtype)
    plain = compare(first.astype(np.float64), second.astype(np.float64))
    other = compare(first, second)
    assert other.angle == pytest.approx(plain.angle, abs=1e-10)
    assert other.sign_agreement == plain.sign_agreement
    np.testing.assert_allclose(other.row_angles, plain.row_angles, atol=1e-10)


def test_layers_side_by_side_give_what_they_give_alone():
    pairs = [RNG.normal(size=(2, 30, 300)).astype(np.float32) for _ in range(16)]
    alone = [compare(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: compare(*pair), pairs)) == alone
