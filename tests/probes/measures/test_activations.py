"""Inputs, dead units and weight gradients against plain formulas."""

import math

import numpy as np
import pytest

from tests.probes import brute_force
from wtdiag.probes import PROBES, Quantities

GENERATOR = np.random.default_rng(7)
SHAPES = [
    ((50, 8), -1),
    ((5, 30), -1),
    ((1, 1), -1),
    ((6, 7, 4), -1),
    ((9, 4, 5, 5), 1),
    ((2, 40, 3, 3), 1),
    ((3, 4, 6), 1),
]


def samples(inputs, units):
    moved = np.moveaxis(inputs.astype(np.float64), units, -1)
    return moved.reshape(-1, moved.shape[-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "units"), SHAPES)
def test_inputs_against_the_covariance(shape, units, dtype):
    inputs = np.maximum(GENERATOR.normal(size=shape), 0).astype(dtype)
    rows = samples(inputs, units)
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows))[::-1][: min(rows.shape)]
    measured = Quantities(inputs=inputs, units=units)
    np.testing.assert_allclose(measured["activation_spectrum"], values, rtol=1e-9, atol=1e-12 * values[0])
    assert measured["activation_norm"] == pytest.approx(np.sqrt(np.mean(rows**2)))
    assert np.sum(values) == pytest.approx(measured["activation_norm"] ** 2 * rows.shape[1])
    if values[0]:
        assert measured["activation_dimension"] == pytest.approx(values.sum() ** 2 / np.sum(values**2))


def test_inputs_larger_than_a_block(monkeypatch):
    inputs = GENERATOR.normal(size=(21, 3, 4, 4))
    whole = Quantities(inputs=inputs)
    monkeypatch.setattr("wtdiag.probes.kernels.moments.BLOCK", 100)
    parts = Quantities(inputs=inputs)
    np.testing.assert_allclose(parts["activation_spectrum"], whole["activation_spectrum"], rtol=1e-12)
    assert parts["activation_norm"] == pytest.approx(whole["activation_norm"])


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_inputs_of_far_scales(scale):
    inputs = GENERATOR.normal(size=(30, 6))
    measured, plain = Quantities(inputs=(scale * inputs).astype(np.float32)), Quantities(inputs=inputs)
    np.testing.assert_allclose(measured["activation_spectrum"], scale**2 * plain["activation_spectrum"], rtol=1e-5)
    assert measured["activation_dimension"] == pytest.approx(plain["activation_dimension"], rel=1e-5)


def test_inputs_in_one_direction_have_one_dimension():
    rank_one = np.outer(GENERATOR.normal(size=20), GENERATOR.normal(size=6))
    assert PROBES["activation_dimension"](inputs=rank_one) == pytest.approx(1)


@pytest.mark.parametrize(("shape", "units"), SHAPES)
def test_dead_units(shape, units):
    error = GENERATOR.normal(size=shape)
    dead = GENERATOR.random(shape[units]) < 0.4
    np.moveaxis(error, units, -1)[..., dead] = 0
    error[0] = 0  # one example without error kills nobody, unless it is the only one
    expected = dead.mean() if shape[0] > 1 else 1.0
    assert Quantities(delta_exact=error, units=units)["dead_units"] == pytest.approx(expected)


def test_weight_gradients():
    w, exact, own = GENERATOR.normal(size=(3, 5, 4, 3, 3))
    measured = Quantities(forward=w, weight_gradient=own, weight_gradient_exact=exact)
    assert measured["weight_gradient_angle"] == pytest.approx(brute_force.angle(own.ravel(), exact.ravel()))
    cosine = np.sum(w * exact) / np.linalg.norm(w) / np.linalg.norm(exact)
    assert measured["radial_cosine"] == pytest.approx(cosine)


@pytest.mark.parametrize("transposed", [False, True])
def test_weight_gradient_null_flips_whole_units(transposed):
    exact = GENERATOR.normal(size=(12, 14))
    own = exact + 2 * GENERATOR.normal(size=exact.shape)
    axis = int(transposed)
    signs = GENERATOR.choice([-1, 1], size=(4000, exact.shape[axis]))
    cosines = signs @ (own * exact).sum(axis=1 - axis) / np.linalg.norm(own) / np.linalg.norm(exact)
    given = {"weight_gradient": own, "weight_gradient_exact": exact, "transposed": transposed}
    mean, sd = Quantities(**given).null("weight_gradient_angle")
    assert mean == 90
    assert sd == pytest.approx(np.degrees(np.arccos(cosines)).std(), rel=0.06)


def test_weights_whose_scale_the_loss_ignores_have_no_radial_gradient():
    w, gradient = GENERATOR.normal(size=(2, 6, 5))
    tangent = gradient - np.sum(gradient * w) / np.sum(w * w) * w
    assert PROBES["radial_cosine"](forward=w, weight_gradient_exact=tangent) == pytest.approx(0, abs=1e-12)


def test_an_unknown_learning_rate_gives_no_update():
    w = np.ones((2, 2))
    assert math.isnan(PROBES["relative_update"](forward=w, forward_gradient=w, forward_lr=math.nan))


def test_projections_and_norms_of_errors():
    names = ("forward_projection", "feedback_projection", "delta", "delta_exact")
    given = {name: GENERATOR.normal(size=(10, 4, 3)) for name in names}
    measured = Quantities(**given)
    expected = brute_force.angle(given["forward_projection"].ravel(), given["feedback_projection"].ravel())
    assert measured["projection_angle"] == pytest.approx(expected)
    assert measured["error_norm"] == pytest.approx(np.linalg.norm(given["delta"]))
    assert measured["error_norm_exact"] == pytest.approx(np.linalg.norm(given["delta_exact"]))
    assert measured.null("projection_angle")[0] == 90


SENT = ("sent", "sent_local", "sent_exact")
ANGLES = {
    "error_angle": ("delta", "delta_exact"),
    "error_angle_local": ("sent", "sent_local"),
    "error_angle_inherited": ("sent_local", "sent_exact"),
    "error_angle_total": ("sent", "sent_exact"),
}


@pytest.mark.parametrize("low", ["delta", "delta_exact", *SENT])
@pytest.mark.parametrize("factor", [0.0, 1e-13, 1e-39])
def test_errors_below_the_floor_are_flagged_and_have_no_angle(low, factor):
    errors = {name: GENERATOR.normal(size=(8, 5)).astype(np.float32) for name in ("delta", "delta_exact", *SENT)}
    assert Quantities(**errors)["below_floor"] == 0
    errors[low] = np.float32(factor) * errors[low]
    measured = Quantities(**errors)
    assert measured["below_floor"] == 1
    for name, pair in ANGLES.items():
        assert math.isnan(measured[name]) == (low in pair), name


def test_an_error_just_above_the_floor_has_an_angle():
    delta = np.full((4, 4), 2e-38, np.float32)
    assert Quantities(delta=delta, delta_exact=delta)["below_floor"] == 0
    assert Quantities(delta=delta, delta_exact=delta)["error_angle"] == 0
    assert Quantities(delta=delta / 4, delta_exact=delta)["below_floor"] == 1


def test_a_first_layer_sends_nothing_and_is_flagged_all_the_same():
    zero = np.zeros((3, 2))
    assert Quantities(delta=zero, delta_exact=np.ones((3, 2)))["below_floor"] == 1
    assert math.isnan(Quantities(delta=zero * math.nan, delta_exact=zero)["below_floor"])
