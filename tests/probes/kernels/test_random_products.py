"""Growth of random products against cases with a known exponent, and the Krylov space against dense algebra."""

import numpy as np
import pytest

from wtdiag.probes.kernels.krylov import krylov
from wtdiag.probes.kernels.random_products import fluctuation_factor, limit_of_rate

GENERATOR = np.random.default_rng(3)


def wishart(examples, size):
    """The mean and the deviations of x xᵀ for white x."""
    x = GENERATOR.normal(size=(examples, size))
    each = x[:, :, None] * x[:, None, :]
    return each.mean(0), each - each.mean(0)


@pytest.mark.parametrize("spread", [0.5, 0.9])
def test_two_values_of_a_single_curvature(spread):
    # The product of both factors, 1 − 2η + (1 − s²) η², passes −1 or 1 where the exponent passes 0.
    roots = np.roots([1 - spread**2, -2, 2]), np.roots([1 - spread**2, -2, 0])
    limit = min(root.real for pair in roots for root in pair if abs(root.imag) < 1e-9 and root.real > 1e-9)
    factor = fluctuation_factor(np.eye(1), spread * np.array([[[1.0]], [[-1.0]]]), batch=1)
    assert 2 * factor == pytest.approx(limit, rel=0.06)


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_white_inputs_are_limited_by_their_number_of_directions(momentum):
    size, batch = 24, 32
    deviations = wishart(1500, size)[1]
    expected = 1 / (1 + (size + 1) / batch * (1 + momentum) / (1 - momentum))
    assert fluctuation_factor(np.eye(size), deviations, batch, momentum) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("nesterov", [False, True])
def test_large_batches_are_stable_where_their_mean_is(nesterov):
    mean, deviations = wishart(200, 6)
    assert fluctuation_factor(mean, deviations, 10**7, 0.9, nesterov) == pytest.approx(1, abs=0.01)
    assert fluctuation_factor(mean, 0 * deviations, 2, 0.9, nesterov) == 1
    assert fluctuation_factor(mean, deviations, 4, 0.9, nesterov) < 0.5


def test_the_unit_does_not_matter():
    mean, deviations = wishart(100, 5)
    factors = [fluctuation_factor(c * mean, c * deviations, 8, 0.9) for c in (1.0, 1e-6, 1e9)]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)


def test_the_limit_of_a_constant_curvature():
    assert limit_of_rate(0.0, nesterov=False) == limit_of_rate(0.0, nesterov=True) == 2
    assert limit_of_rate(0.9, nesterov=False) == pytest.approx(3.8)


def test_a_krylov_space_is_orthonormal_and_complete():
    root = GENERATOR.normal(size=(12, 5))
    matrix = root @ root.T
    basis, projected = krylov(lambda v: (matrix @ v.ravel()).reshape(v.shape), GENERATOR.normal(size=(3, 4)), 9)
    assert basis.shape == (6, 3, 4)  # five modes, and the part of the start that none of them reaches
    rows = basis.reshape(6, -1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(6), atol=1e-9)
    np.testing.assert_allclose(rows @ matrix @ rows.T, projected, atol=1e-8)
    np.testing.assert_allclose(np.linalg.eigvalsh(projected)[1:], np.linalg.eigvalsh(matrix)[-5:], rtol=1e-8)
