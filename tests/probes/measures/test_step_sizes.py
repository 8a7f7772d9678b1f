"""Steps of B and the distance that is left, against the optimisers themselves."""

import math

import numpy as np
import pytest

from tests.probes.layers_in_numpy import RULES, law_of
from tests.probes.measures.test_learning import fixed_point, quantities, train
from wtdiag.probes import PROBES


def adam(b, law, steps, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Follow `torch.optim.Adam` on the mean gradient."""
    mean, square = np.zeros_like(b), np.zeros_like(b)
    for step in range(1, steps + 1):
        gradient = law.gradient(b)
        mean, square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * gradient**2
        b = b - law.lr * (mean / (1 - beta1**step)) / (np.sqrt(square / (1 - beta2**step)) + epsilon)
        yield b


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(6, 9), (1, 7), (1, 1)])
@pytest.mark.parametrize("lr", [1e-3, 10.0])
def test_the_first_step_of_adam(rule, shape, lr):
    w, b, law = law_of(rule, shape, lr=lr, optimizer="adam")
    moved = np.linalg.norm(next(adam(b, law, 1)) - b)
    expected = moved / np.linalg.norm(fixed_point(w, b, law))
    assert quantities(w, b, law)["relative_step"] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_the_step_of_gradient_descent(rule, momentum, nesterov):
    w, b, law = law_of(rule, lr=0.02, weight_decay=1e-2, momentum=0.0)
    moved = np.linalg.norm(next(train(b, law, 1)) - b) / (1 - momentum)
    expected = moved / np.linalg.norm(fixed_point(w, b, law))
    law.momentum, law.nesterov = momentum, nesterov
    assert quantities(w, b, law)["relative_step"] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("rule", RULES)
def test_no_entry_arrives_before_its_travel_time(rule):
    w, b, law = law_of(rule, lr=1e-3, optimizer="adam", interval=3)
    point = fixed_point(w, b, law)
    time = quantities(w, b, law)["travel_time"]
    apart = np.linalg.norm(b - point)
    assert time == pytest.approx(3 * apart / math.sqrt(b.size) / 1e-3, rel=5e-3)
    *_, half = adam(b, law, int(time / 3 / 2))
    assert np.linalg.norm(half - point) > 0.45 * apart  # an entry moves by no more than η in a step


@pytest.mark.parametrize("name", ["relative_step", "travel_time"])
def test_what_has_no_rate_or_rest_has_no_step(name):
    for optimizer in ("sgd", "adam"):
        assert math.isnan(quantities(*law_of("ia", lr=math.nan, optimizer=optimizer))[name])
        w, b, law = law_of("ia", optimizer=optimizer)
        assert math.isnan(quantities(w * math.inf, b, law)[name])
    w, b, law = law_of("sa", optimizer="adam")
    law.target = np.zeros_like(w)  # B decays to zero, in comparison with which every step is large
    assert math.isnan(quantities(w, b, law)["relative_step"])


def test_a_rate_of_zero():
    for optimizer, time in (("adam", math.inf), ("sgd", math.nan)):
        still = quantities(*law_of("ia", lr=0.0, optimizer=optimizer))
        assert still["relative_step"] == 0
        assert still["travel_time"] == pytest.approx(time, nan_ok=True)


def test_one_is_the_limit_of_a_step():
    assert PROBES["relative_step"].limit == 1
    assert PROBES["relative_step"].scale == PROBES["travel_time"].scale == "log"
