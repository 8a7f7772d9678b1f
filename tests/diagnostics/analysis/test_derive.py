"""What follows from the measurements, against sums and slopes written out."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wtdiag.diagnostics.analysis.derive import DERIVED, derive, error_angle_product, gain_elasticity, log_norm_ratio_sum

DIMS = ("step", "layer")


def dataset(carries=None, direct=None, **measures):
    measures = {name: (DIMS, np.asarray(values, dtype=float)) for name, values in measures.items()}
    steps, layers = next(iter(measures.values()))[1].shape
    coords = {"step": np.arange(steps) * 10, "layer": [f"fc{i}" for i in range(layers)]}
    coords |= {} if carries is None else {"carries_error": ("layer", carries)}
    coords |= {} if direct is None else {"direct": ("layer", direct)}
    return xr.Dataset(measures, coords)


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_derives_what_it_has_the_sources_of():
    ones = np.ones((2, 3))
    assert set(derive(dataset(norm_ratio=ones))) == {"norm_ratio", "log_norm_ratio_sum"}
    assert set(derive(dataset(weight_gain=ones))) == {"weight_gain"}
    assert set(derive(dataset(error_angle_local=ones))) == {"error_angle_local", "error_angle_product"}
    every = dataset(norm_ratio=ones, weight_gain=ones, forward_norm=ones, error_angle_local=ones)
    derived = derive(every)
    assert set(derived) - set(every) == {"gain_elasticity", "log_norm_ratio_sum", "error_angle_product"}
    xr.testing.assert_identical(derived[list(every)], every)
    for name in ("gain_elasticity", "log_norm_ratio_sum", "error_angle_product"):
        assert derived[name].attrs == DERIVED[name].attrs
        assert {"units", "long_name", "equation", "reference", "subject"} <= set(DERIVED[name].attrs)
        assert derived[name].dims == (("step",) if name == "log_norm_ratio_sum" else DIMS)


def test_growth_of_s_begins_at_its_first_value():
    number = np.array([[0.0, 0.2, np.inf], [np.nan, 0.4, 0.5], [3.0, 0.1, 2.0], [6.0, np.nan, 1.0]])
    found = derive(dataset(step_size_number=number)).step_size_growth.values
    expected = [[np.nan, 1, np.nan], [np.nan, 2, 1], [1, 0.5, 4], [2, np.nan, 2]]
    np.testing.assert_allclose(found, expected)


def test_elasticity_is_the_slope_of_a_fitted_line():
    norm, gain = np.exp(random(0, 8, 3)), random(1, 8, 3)
    found = gain_elasticity(dataset(forward_norm=norm, weight_gain=gain)).values
    assert np.isnan(found[:2]).all()
    for step in range(2, 8):
        for layer in range(3):
            x, y = np.log(norm[: step + 1, layer]), np.log(np.abs(gain[: step + 1, layer]))
            np.testing.assert_allclose(found[step, layer], np.polyfit(x, y, 1)[0], rtol=1e-10)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, -np.inf])
def test_elasticity_passes_over_what_has_no_logarithm(bad):
    norm, gain = np.exp(random(0, 6, 1)), random(1, 6, 1)
    whole = gain_elasticity(dataset(forward_norm=np.delete(norm, 2, 0), weight_gain=np.delete(gain, 2, 0)))
    for name in ("norm", "gain"):
        values = {"norm": norm.copy(), "gain": gain.copy()}
        values[name][2] = bad
        found = gain_elasticity(dataset(forward_norm=values["norm"], weight_gain=values["gain"]))
        np.testing.assert_allclose(found.values[-1], whole.values[-1], rtol=1e-12)
        assert np.isnan(found.values[2, 0])  # two are left by then


@pytest.mark.parametrize(("moved", "there"), [(1.0, False), (1.049, False), (1.051, True), (1e30, True)])
def test_elasticity_needs_weights_that_move(moved, there):
    norm = np.array([[1.0], [1.0], [moved]])
    found = gain_elasticity(dataset(forward_norm=norm, weight_gain=norm**-0.5)).values[:, 0]
    assert np.isnan(found[:2]).all()
    if there:
        np.testing.assert_allclose(found[2], -0.5, rtol=1e-10)
    else:
        assert np.isnan(found[2])


@given(scale=st.floats(1e-30, 1e30), power=st.floats(-3, 3))
def test_elasticity_does_not_depend_on_units(scale, power):
    norm = np.exp(random(0, 5, 1))
    found = gain_elasticity(dataset(forward_norm=norm * scale, weight_gain=scale * norm**power))
    np.testing.assert_allclose(found.values[-1, 0], power, atol=1e-9)


def test_gains_add_up_over_the_layers_that_carry_error():
    ratio = np.exp(random(0, 4, 5))
    carries, direct = np.array([False, True, True, True, True]), np.array([False, False, True, False, False])
    found = log_norm_ratio_sum(dataset(carries, direct, norm_ratio=ratio))
    for step in range(4):
        assert found.values[step] == pytest.approx(sum(math.log(ratio[step, layer]) for layer in (1, 3, 4)))
    every = log_norm_ratio_sum(dataset(norm_ratio=ratio))
    np.testing.assert_allclose(every, np.log(ratio).sum(axis=1))


def test_gains_without_a_sum():
    ratio = np.array([[1.0, np.nan], [2.0, 0.0], [2.0, 3.0]])
    np.testing.assert_allclose(log_norm_ratio_sum(dataset(norm_ratio=ratio)), [np.nan, -np.inf, np.log(6)])
    assert np.isnan(log_norm_ratio_sum(dataset([False, False], norm_ratio=ratio))).all()
    assert np.isnan(log_norm_ratio_sum(dataset(direct=[True, True], norm_ratio=ratio))).all()


def test_product_of_the_cosines_above():
    local = np.abs(random(0, 4, 5)) * 40
    carries = np.array([False, True, True, False, True])
    local[:, ~carries] = np.nan
    found = error_angle_product(dataset(carries, error_angle_local=local)).values
    for step in range(4):
        for layer in range(5):
            product = 1.0
            for above in range(layer + 1, 5):
                if carries[above]:
                    product *= math.cos(math.radians(local[step, above]))
            assert found[step, layer] == pytest.approx(math.degrees(math.acos(product)), abs=1e-6)


def test_product_of_reversed_and_missing_angles():
    found = error_angle_product(dataset(error_angle_local=[[0, 180, 180], [0, 180, 0], [0, np.nan, 0], [np.nan, 0, 0]]))
    np.testing.assert_allclose(found, [[0, 180, 0], [180, 0, 0], [np.nan, 0, 0], [0, 0, 0]], atol=1e-6)


def test_no_product_below_direct_feedback():
    found = error_angle_product(dataset(direct=[True, True, False], error_angle_local=np.full((1, 3), 60.0)))
    np.testing.assert_allclose(found, [[np.nan, 60, 0]], atol=1e-6)


@given(local=arrays(float, (1, 6), elements=st.floats(0, 90)))
def test_product_grows_downwards(local):
    found = error_angle_product(dataset(error_angle_local=local)).values[0]
    assert found[-1] == 0
    assert (np.diff(found) <= 1e-5).all()
    assert (found <= 90 + 1e-9).all()


@pytest.mark.parametrize("carries", [None, [True]])
def test_one_layer_of_one_snapshot(carries):
    one = [[1.0]]
    derived = derive(dataset(carries, norm_ratio=one, weight_gain=one, forward_norm=one, error_angle_local=one))
    assert derived.log_norm_ratio_sum.values.tolist() == [0.0]
    assert derived.error_angle_product.values.tolist() == [[0.0]]
    assert np.isnan(derived.gain_elasticity).all()
