"""Chance levels against simulation."""

import numpy as np
import pytest

from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.kernels.comparison import Comparison
from wtdiag.probes.kernels.nulls import norm_ratio_null, random_spectra

DRAWS = 3000


def simulate(name, shape, groups=1, draws=DRAWS):
    """Values of a probe on Gaussian weights with one Frobenius norm, and its null."""
    generator = np.random.default_rng(1)
    values = []
    for _ in range(draws):
        forward, feedback = generator.normal(size=(2, *shape))
        forward, feedback = forward / np.linalg.norm(forward), 3 * feedback / np.linalg.norm(feedback)
        quantities = Quantities(forward=forward, feedback=feedback, groups=groups)
        values.append(quantities[name])
    mean, sd = quantities.null(name)
    return np.array(values), mean, sd


@pytest.mark.parametrize("name", ["weight_angle", "sign_agreement", "weight_gain", "relative_distance"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 3), (10, 12)])
def test_angle_and_signs(name, shape):
    values, mean, sd = simulate(name, shape)
    assert values.mean() == pytest.approx(mean, abs=4 * sd / DRAWS**0.5)
    assert values.std() == pytest.approx(sd, rel=0.06)


@pytest.mark.parametrize("shape", [(1, 6), (10, 12)])
def test_norm_ratio(shape):
    generator = np.random.default_rng(1)
    ratios = []
    for _ in range(DRAWS):
        quantities = Quantities(forward=generator.normal(size=shape), feedback=generator.normal(size=shape))
        ratios.append(quantities["norm_ratio"])
    mean, sd = quantities.null("norm_ratio")
    assert np.mean(ratios) == pytest.approx(mean, abs=5 * sd / DRAWS**0.5)
    assert np.std(ratios) == pytest.approx(sd, rel=0.06)


def test_norm_ratio_of_known_moments():
    mean, sd = norm_ratio_null(Comparison(3, 1.0, 1.0))
    assert (mean, sd) == pytest.approx((4 / np.pi, (3 - 16 / np.pi**2) ** 0.5), rel=1e-12)
    for size in (10**4, 10**6, 10**8):  # 1 + 1 / 2n and 1 / √n to the next order: nothing cancels
        mean, sd = norm_ratio_null(Comparison(size, 1.0, 1.0))
        assert size * (mean - 1) == pytest.approx(0.5, rel=1e-3)
        assert sd * size**0.5 == pytest.approx(1, rel=1.5 / size + 1e-6)


def test_norm_ratio_of_few_entries_has_no_moments():
    assert np.isnan(norm_ratio_null(Comparison(1, 1.0, 1.0))).all()
    assert np.isnan(norm_ratio_null(Comparison(2, 1.0, 1.0))[1])


UNITS = ["unit_angle_lower_quartile", "unit_angle_median", "unit_angle_upper_quartile", "weighted_sign_agreement"]


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("shape", [(1, 6), (5, 2), (10, 12), (64, 9)])
def test_units(name, shape):
    values, mean, sd = simulate(name, shape)
    if name == "weighted_sign_agreement":  # given W: its scatter differs from one W to the next
        sd = np.mean([simulate_one(name, shape, seed)[1] for seed in range(200)])
    assert values.mean() == pytest.approx(mean, abs=6 * sd / DRAWS**0.5)
    assert values.std() == pytest.approx(sd, rel=0.1)


def simulate_one(name, shape, seed):
    """Null of a probe for one draw of Gaussian weights."""
    forward, feedback = np.random.default_rng(seed).normal(size=(2, *shape))
    return Quantities(forward=forward, feedback=feedback).null(name)


OF_SPECTRA = sorted(
    name for name, probe in PROBES.items() if probe.null and any("spectrum" in use for use in probe.uses)
)
SPECTRAL = [name for name in OF_SPECTRA if not name.endswith("condition_number") and "power_law" not in name]


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((1, 5), 1), ((2, 2), 1), ((30, 8), 1), ((20, 20), 1), ((12, 1, 3, 3), 12), ((8, 3, 2), 2)],
)
def test_spectra(name, shape, groups):
    values, mean, sd = simulate(name, shape, groups, draws=500)
    # The null is a sample too: of at least 256 spectra at these sizes.
    np.testing.assert_allclose(values.mean(axis=0), mean, atol=6 * np.max(sd) / 256**0.5 + 1e-10)
    np.testing.assert_allclose(values.std(axis=0), sd, rtol=0.4, atol=1e-6)


@pytest.mark.parametrize(("shape", "groups"), [((2, 2), 1), ((30, 8), 1), ((20, 20), 1), ((8, 3, 2), 2)])
def test_condition_number(shape, groups):
    values, median, sd = simulate("forward_condition_number", shape, groups, draws=500)
    assert np.median(np.log(values)) == pytest.approx(np.log(median), abs=6 * sd / 256**0.5)
    assert np.log(values).std() == pytest.approx(sd, rel=0.4)


@pytest.mark.parametrize("name", [name for name in OF_SPECTRA if "power_law" in name])
@pytest.mark.parametrize(("shape", "groups"), [((30, 40), 1), ((80, 20), 1), ((24, 12), 2)])
def test_tails(name, shape, groups):
    values, mean, sd = simulate(name, shape, groups, draws=400)
    assert values.mean() == pytest.approx(mean, abs=6 * sd / 256**0.5)
    assert values.std() == pytest.approx(sd, rel=0.4)


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 3, 3)])
def test_too_few_values_for_a_tail_have_no_null(shape):
    assert np.isnan(simulate("forward_power_law_alpha", shape, draws=1)[1:]).all()


@pytest.mark.parametrize(
    ("shape", "groups", "draws"),
    [
        ((1, 5), 1, 1000),
        ((3, 3), 1, 1000),
        ((20, 50), 1, 500),
        ((6, 2, 2), 3, 500),
        ((90, 40), 1, 300),
        ((128, 128), 1, 100),
    ],
)
def test_descent_eigenvalue(shape, groups, draws):
    values, mean, sd = simulate("descent_eigenvalue", shape, groups, draws)
    assert values.mean() == pytest.approx(mean, abs=0.5 * sd)  # larger ones are extrapolated from 32 rows
    assert values.std() == pytest.approx(sd, rel=0.3)


def test_large_spectra_follow_the_marchenko_pastur_law():
    values = random_spectra(200, 400).mean(axis=0) * (200 * 400) ** 0.5
    edges = 400**0.5 + 200**0.5, 400**0.5 - 200**0.5
    s = np.linspace(*edges[::-1], 20001)  # density of singular values of a 200 x 400 matrix
    density = np.sqrt(np.maximum((edges[0] ** 2 - s**2) * (s**2 - edges[1] ** 2), 0)) / s
    quantiles = np.interp((np.arange(200) + 0.5) / 200, np.cumsum(density) / density.sum(), s)[::-1]
    np.testing.assert_allclose(values, quantiles, rtol=0.03)


def test_spectra_are_drawn_once_and_always_the_same():
    first = random_spectra(6, 7).copy()
    random_spectra.cache_clear()
    np.testing.assert_array_equal(random_spectra(7, 6), first)
    assert random_spectra(7, 6) is random_spectra(7, 6)


def errors_of_random_networks(generator):
    """Errors that two random matrices send down from the same examples, through one rectifier."""
    examples, units = 32, 40
    error = generator.normal(size=(examples, 1)) @ generator.normal(size=(1, 6))
    error += 0.5 * generator.normal(size=(examples, 6))
    active = generator.random((examples, units)) < 0.5
    return {name: error @ generator.normal(size=(6, units)) * active for name in ("delta", "delta_exact")}


def test_error_angles_of_random_networks():
    generator = np.random.default_rng(2)
    drawn = [Quantities(**errors_of_random_networks(generator)) for _ in range(400)]
    angles = np.array([quantities["error_angle"] for quantities in drawn])
    mean, sd = np.mean([quantities.null("error_angle") for quantities in drawn], axis=0)
    assert angles.mean() == pytest.approx(mean, abs=4 * sd / 20)
    assert angles.std() == pytest.approx(sd, rel=0.15)
    assert sd > 3 * np.degrees(1 / (32 * 40) ** 0.5)  # what independent entries would give


def test_error_null_is_the_spread_under_flipped_units():
    generator = np.random.default_rng(3)
    exact = generator.normal(size=(5, 12, 4))
    delta = exact + 2 * generator.normal(size=exact.shape)
    for units in (1, -1):
        signs = generator.choice([-1, 1], size=(4000, exact.shape[units]))
        shares = (exact * delta).sum(axis=(0, 2) if units == 1 else (0, 1))
        cosines = signs @ shares
        cosines /= np.linalg.norm(exact) * np.linalg.norm(delta)
        _, sd = Quantities(delta=delta, delta_exact=exact, units=units).null("error_angle")
        assert np.degrees(np.arccos(cosines)).std() == pytest.approx(sd, rel=0.06)


def test_entries_without_a_sign_do_not_narrow_the_chance_level():
    generator = np.random.default_rng(4)
    forward = generator.normal(size=(20, 30)) * (generator.random((20, 30)) < 0.1)
    drawn = [PROBES["sign_agreement"](forward=forward, feedback=generator.normal(size=(20, 30))) for _ in range(2000)]
    mean, sd = Quantities(forward=forward, feedback=np.ones((20, 30))).null("sign_agreement")
    assert np.mean(drawn) == pytest.approx(mean, abs=5 * sd / 2000**0.5)
    assert np.std(drawn) == pytest.approx(sd, rel=0.06)


def test_a_condition_number_is_held_against_the_median_for_it_has_no_mean():
    spectra = random_spectra(5, 5)
    ratios = spectra[:, 0] / spectra[:, -1]
    median, _ = Quantities(forward=np.random.default_rng(0).normal(size=(5, 5))).null("forward_condition_number")
    assert median == pytest.approx(np.median(ratios), rel=1e-3)
    assert np.exp(np.log(ratios).mean()) != pytest.approx(median, rel=1e-2)
