"""Norms of layers as operators, against their explicit matrices."""

import math

import numpy as np
import pytest

from tests.probes.layers_in_numpy import Convolution
from wtdiag.probes import Quantities

GENERATOR = np.random.default_rng(6)


def norms(w, b, operator, **others):
    measured = Quantities(forward=w, feedback=b, operator=operator, **others)
    return measured["forward_operator_norm"], measured["feedback_operator_norm"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kernel", "map_"), [((3, 2, 3, 3), (2, 9, 7)), ((4, 4, 1, 1), (4, 5, 5)), ((1, 3, 3, 3), (3, 1, 1))]
)
def test_convolutions(kernel, map_, dtype):
    operator = Convolution(map_, padding=kernel[2] // 2)
    w, b = GENERATOR.normal(size=(2, *kernel)).astype(dtype)
    expected = [np.linalg.norm(operator.matrix(weight), 2) for weight in (w, b)]
    assert norms(w, b, operator) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("kernel", "map_", "padding", "stride"),
    [((1, 1, 3, 3), (1, 16, 16), 1, 1), ((3, 2, 3, 3), (2, 15, 12), 1, 2), ((4, 3, 5, 5), (3, 12, 9), 2, 2),
     ((2, 2, 3, 3), (2, 14, 14), 0, 3), ((2, 3, 2, 3), (3, 11, 10), 2, 1)],
)  # fmt: skip
def test_dense_spectra_are_followed_to_their_end(kernel, map_, padding, stride):
    operator = Convolution(map_, padding=padding, stride=stride)
    w, b = (np.random.default_rng(seed).normal(size=kernel) for seed in (6, 7))
    x, y = GENERATOR.normal(size=(1, *map_)), operator.apply(w, GENERATOR.normal(size=(1, *map_)))
    assert np.vdot(y, operator.apply(w, x)) == pytest.approx(np.vdot(operator.adjoint(w, y), x))
    expected = [np.linalg.norm(operator.matrix(weight), 2) for weight in (w, b)]
    assert norms(w, b, operator) == pytest.approx(expected, rel=5e-4)


def test_a_kernel_that_the_unfolded_matrix_misjudges():
    operator, w = Convolution((1, 16, 16)), np.ones((1, 1, 3, 3))  # a blur: 3 as a matrix, nearly 9 on a map
    measured = Quantities(forward=w, feedback=w, operator=operator)
    assert measured["forward_spectral_norm"] == pytest.approx(3)
    assert measured["forward_operator_norm"] == pytest.approx(np.linalg.norm(operator.matrix(w), 2), rel=1e-3)
    assert measured["forward_operator_norm"] > 8.5


def test_the_narrow_gap_of_a_large_map():
    operator, w = Convolution((1, 40, 40)), GENERATOR.normal(size=(1, 1, 3, 3))
    expected = np.linalg.norm(operator.matrix(w), 2)
    assert norms(w, w, operator)[0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_scale(scale):
    operator = Convolution((2, 6, 6))
    w, b = GENERATOR.normal(size=(2, 3, 2, 3, 3)).astype(np.float32)
    forward, feedback = norms(w, b, operator)
    c = np.float32(scale)
    assert norms(c * w, c * b, operator) == pytest.approx((scale * forward, scale * feedback), rel=1e-5)


def test_degenerate_weights():
    operator = Convolution((2, 4, 4))
    w = GENERATOR.normal(size=(3, 2, 3, 3))
    assert norms(0 * w, w, operator)[0] == 0
    for bad in (math.nan, math.inf):
        broken = w.copy()
        broken[0, 0, 0, 0] = bad
        assert math.isnan(norms(broken, w, operator)[0])
    rank_one = np.multiply.outer(w[:, 0, 0, 0], w[0])
    assert norms(w, rank_one, operator)[1] == pytest.approx(np.linalg.norm(operator.matrix(rank_one), 2), rel=1e-3)


def test_dense_layers_have_the_norm_of_their_matrix():
    w, b = GENERATOR.normal(size=(2, 4, 7))
    assert norms(w, b, None) == pytest.approx((np.linalg.norm(w, 2), np.linalg.norm(b, 2)))
    assert math.isnan(norms(np.full((4, 7), math.nan), b, None)[0])


def test_direct_feedback_is_none_of_the_layers_operations():
    assert math.isnan(norms(np.ones((3, 2)), np.ones((10, 2)), None, direct=True)[1])
