"""The step-size number of random batches against dense algebra of second moments."""

import math

import numpy as np
import pytest

from tests.probes.layers_in_numpy import SumLaw, law_of
from wtdiag.probes import Quantities


def numbers(w, b, law):
    measured = Quantities(forward=w, feedback=b, law=law)
    return measured["mean_step_size_number"], measured["step_size_number"]


class NoiseLaw(SumLaw):
    """A law that learns from Gaussian noise, in batches with so many products."""

    samples_drawn = 16

    def white(self):
        size = len(self.c) if self.null else len(self.sigma)
        return size, self.samples_drawn, self.decay


def growth_of_squares(curvature, decay, samples, rate, momentum, nesterov, steps=1500):
    """The factor by which E[B Bᵀ] grows in a step, by iterating the second moments of B and its velocity."""
    size = len(curvature)
    h = curvature + decay * np.eye(size)
    moments = np.eye(2 * size)
    ahead, behind = (1 + momentum, momentum**2) if nesterov else (1.0, momentum)
    unit = np.eye(size)
    step = np.block([[unit - rate * ahead * h, -rate * behind * unit], [h, momentum * unit]])
    enter = np.vstack([-rate * ahead * np.eye(size), np.eye(size)])
    for _ in range(steps):
        p = moments[:size, :size]
        noise = (curvature @ p @ curvature + np.trace(p @ curvature) * curvature) / samples
        moments = step @ moments @ step.T + enter @ noise @ enter.T
        factor = np.trace(moments)
        moments /= factor
    return factor


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.8, False), (0.8, True)])
@pytest.mark.parametrize("coefficients", [{"null": 1.0, "decay": 0.1}, {"null": 1.0}, {"sparse": 1.0}])
def test_noise_inputs_against_the_recursion_of_second_moments(coefficients, momentum, nesterov):
    spectrum = np.array([1.0, 0.7, 0.2, 0.05])
    w = np.ones((4, 500) if "null" in coefficients else (500, 4))
    other = np.eye(500)
    c, sigma = (np.diag(spectrum), other) if "null" in coefficients else (other, np.diag(spectrum))
    law = NoiseLaw(w, c, sigma, **coefficients, momentum=momentum, nesterov=nesterov)
    law.lr = 1 / numbers(w, w, law)[1]
    rates = 0.96 * law.lr, 1.04 * law.lr
    below, above = (growth_of_squares(np.diag(spectrum), law.decay, 16, rate, momentum, nesterov) for rate in rates)
    assert below < 1 < above


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_white_noise_in_closed_form(momentum):
    w = np.ones((2, 30))
    law = NoiseLaw(w, np.eye(2), np.eye(30), sparse=0.3, lr=0.1, momentum=momentum)
    mean, number = numbers(w, w, law)
    assert number / mean == pytest.approx(1 + 31 / 16 * (1 + momentum) / (1 - momentum), rel=1e-4)


def test_without_fluctuations_it_is_that_of_the_mean():
    mean, number = numbers(*law_of("ia", lr=0.3))
    assert number == mean > 0


def test_what_has_no_number():
    assert all(math.isnan(number) for number in numbers(*law_of("ia", optimizer="adam")))
    assert numbers(*law_of("ia", lr=0.0)) == (0, 0)
