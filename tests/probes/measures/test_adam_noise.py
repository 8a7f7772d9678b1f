"""The noise of B at rest under Adam, against the closed form of one curvature and against Adam itself."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.probes.layers_in_numpy import SumLaw, law_of
from tests.probes.measures.test_learning import fixed_point, quantities
from tests.probes.measures.test_step_sizes import adam
from wtdiag.probes.kernels.lanczos import modes
from wtdiag.probes.kernels.random_products import resting_variance
from wtdiag.probes.measures.dynamics.adam_noise import adam_variance


@dataclass
class NoisyLaw(SumLaw):
    """A law whose gradient has independent Gaussian noise, of a size of its own in each entry."""

    deviation: np.ndarray = None
    generator: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def noise(self, feedback, draws):
        return self.deviation * self.generator.normal(size=(draws, *feedback.shape))


class Sampled(NoisyLaw):
    def gradient(self, feedback):
        return super().gradient(feedback) + self.noise(feedback, 1)[0]


def noisy(rule, lr, kind=NoisyLaw, shape=(12, 16)):
    w, b, law = law_of(rule, shape, decay=0.2)  # so that noise is at rest within the steps of a test
    deviation = 0.05 * np.exp(np.random.default_rng(4).normal(scale=0.5, size=shape))
    return w, b, kind(**vars(law) | {"lr": lr, "optimizer": "adam", "deviation": deviation})


@pytest.mark.parametrize("lr", [1e-4, 1e-3])
def test_one_curvature_in_closed_form(lr):
    shape, curvature, deviation = (30, 40), 0.2, 0.5
    noise = deviation * np.random.default_rng(0).normal(size=(200, *shape))
    found = adam_variance(lambda v: curvature * v, noise, lr)
    effective = 0.1 * lr / deviation  # Adam divides by the deviation of the gradient
    expected = np.prod(shape) * (effective * deviation) ** 2
    expected *= resting_variance(np.array([effective * curvature]), 0.9, False)[0][0]
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("rule", ["sa", "ia", "wm-reg", "sum"])
@pytest.mark.parametrize("lr", [0.004, 0.02])
def test_against_adam_itself(rule, lr):
    w, b, law = noisy(rule, lr)
    point = fixed_point(w, b, law)
    away = [np.sum((b - point) ** 2) for b in adam(point, noisy(rule, lr, Sampled)[2], 4000)]
    simulated = math.degrees(math.atan(math.sqrt(np.mean(away[1000:])) / np.linalg.norm(point)))
    assert quantities(w, b, law)["predicted_noise_angle"] == pytest.approx(simulated, rel=0.15)


def test_where_there_is_no_linear_theory():
    w, b, law = noisy("ia", 0.002)
    assert quantities(w, b, law)["predicted_noise_angle"] > 0
    for change in ({"deviation": 0 * w}, {"deviation": 1e-6 + 0 * w, "lr": 0.1}, {"update_noise": 0.1}, {"lr": 0.0}):
        assert math.isnan(quantities(w, b, NoisyLaw(**vars(law) | change))["predicted_noise_angle"])


def test_modes_are_those_of_the_matrix():
    generator = np.random.default_rng(0)
    root = generator.normal(size=(12, 12))
    matrix, start = root @ root.T, generator.normal(size=(3, 4))
    values, weights, vectors = modes(lambda v: (matrix @ v.ravel()).reshape(3, 4), start, 12)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(np.tensordot(weights, vectors, 1), start, atol=1e-10)
    few = modes(lambda v: (matrix @ v.ravel()).reshape(3, 4), start, 5)
    cube = np.linalg.matrix_power(matrix, 3) @ start.ravel()
    np.testing.assert_allclose(np.tensordot(few[1] * few[0] ** 3, few[2], 1).ravel(), cube, rtol=1e-8)
    assert modes(lambda v: v * math.inf, start, 5)[0].tolist() == [math.inf]
