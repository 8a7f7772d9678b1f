"""The table of docs/theory.md, made again in small: predictions of the linear theory against simulations."""

import pytest

from bench.evidence.theory import BATCH, LIMITS, REGULARISED, SimulatedCase, critical_rate, noise_angle, resting_angle


@pytest.fixture(scope="module")
def case():
    made = {}
    return lambda model, rule: made.setdefault((model, rule), SimulatedCase(model, rule))


def held(row):
    return row.difference == pytest.approx(0, abs=LIMITS[row.quantity])


@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("rule", REGULARISED)
def test_critical_rates(case, model, rule):
    assert held(critical_rate(case(model, rule), steps=60))


def test_critical_rates_with_momentum(case):
    assert held(critical_rate(case("mlp", "ia"), momentum=0.9, steps=100))


@pytest.mark.parametrize("rule", REGULARISED)
def test_resting_angles(case, rule):
    assert held(resting_angle(case("mlp", rule), steps=500))


@pytest.mark.parametrize(("rule", "source"), [("sa", "updates"), ("wm-reg", "batches"), ("wm", "inputs")])
def test_noise_angles(case, rule, source):
    assert held(noise_angle(case("mlp", rule), source, steps=300))


def test_batches_are_stable_where_their_mean_is(case):
    assert held(critical_rate(case("mlp", "aa"), batch=BATCH, steps=300))


@pytest.mark.parametrize(("fan_in", "momentum", "batch"), [(None, 0.9, 16), (32, 0.0, 64), (256, 0.0, 64)])
def test_batches_that_differ_have_a_limit_of_their_own(case, fan_in, momentum, batch):
    made = case("mlp", "ia") if fan_in is None else SimulatedCase.alone(fan_in, "aa", inputs="noise")
    law = {"momentum": momentum, "batch_size": batch, "epoch": None}
    limit = 1 / made.predict("step_size_number", **law)
    assert limit < 0.7 / made.predict("mean_step_size_number", **law)
    assert not made.moves_apart(0.85 * limit, momentum, batch, steps=300)
    assert made.moves_apart(1.2 * limit, momentum, batch, steps=300)
