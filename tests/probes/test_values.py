"""Every probe against brute force in float64, and where float arithmetic is hardest."""

import numpy as np
import pytest
import scipy.linalg

from probes import PROBES, Quantities
from probes.comparison import compare
from probes.spectra import decompose

RNG = np.random.default_rng(0)
SHAPES = [
    (1, 1),
    (1, 9),
    (9, 1),
    (10, 64),
    (64, 10),
    (40, 40),
    (150, 250),
    (4, 3, 5),
    (8, 3, 3, 3),
    (3, 4, 2, 2, 2),
]


def pair(shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype), RNG.normal(size=shape).astype(dtype)


def brute(forward, feedback):
    """Each measure as its equation says, in extended precision."""
    w, b = (array.astype(np.longdouble).ravel() for array in (forward, feedback))
    w_norm, b_norm = np.sqrt(w @ w), np.sqrt(b @ b)
    singular = {
        side: scipy.linalg.svdvals(array.astype(np.float64).reshape(len(array), -1))
        for side, array in (("forward", forward), ("feedback", feedback))
    }
    difference, total = (np.linalg.norm(w / w_norm + sign * b / b_norm) for sign in (-1, 1))
    values = {
        "weight_angle": np.degrees(2 * np.arctan2(difference, total)),
        "sign_agreement": np.mean((np.sign(w) == np.sign(b))[(w != 0) & (b != 0)]),
        "forward_norm": w_norm,
        "feedback_norm": b_norm,
        "norm_ratio": b_norm / w_norm,
    }
    for side, sigma in singular.items():
        values[f"{side}_singular_values"] = sigma
        values[f"{side}_spectral_norm"] = sigma[0]
        values[f"{side}_stable_rank"] = ((sigma / sigma[0]) ** 2).sum()
    return values


def check(forward, feedback, rtol=1e-9):
    quantities = Quantities(forward=forward, feedback=feedback)
    for name, expected in brute(forward, feedback).items():
        small = 1e-10 * np.max(expected) if "singular" in name else 0
        np.testing.assert_allclose(
            quantities[name], np.asarray(expected, np.float64), rtol=rtol, atol=small, err_msg=name
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_brute_force(shape, dtype):
    check(*pair(shape, dtype))


def test_covers_every_probe_of_weights():
    probes = {name for name, probe in PROBES.items() if probe.needs <= {"forward", "feedback"}}
    assert probes == set(brute(*pair((2, 2))))


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_far_scales(scale):
    forward, feedback = pair((20, 30))
    check((forward * scale).astype(np.float32), feedback)
    check((forward * scale).astype(np.float32), (feedback / scale).astype(np.float32))


def test_scales_whose_squares_leave_float64():
    forward, feedback = pair((20, 30), np.float64)
    check(forward * 1e200, feedback * 1e-200)
    assert compare(np.array([1.7e308]), np.array([5e-300])).angle == 0


def test_integer_like_sparse_and_rank_one():
    check(RNG.integers(-2, 3, (12, 17)).astype(np.float32), RNG.integers(-1, 2, (12, 17)).astype(np.float32))
    rank_one = np.outer(RNG.normal(size=12), RNG.normal(size=17))
    check(rank_one, pair((12, 17), np.float64)[0])
    assert PROBES["forward_stable_rank"](forward=rank_one) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("degrees", [0, 1e-7, 1e-5, 1e-3, 0.05, 0.09, 1, 90, 179, 179.95, 180 - 1e-5, 180])
@pytest.mark.parametrize("scales", [(1, 1), (1e30, 1e-30), (1e-120, 1e120)])
def test_known_angles(degrees, scales):
    size = 100_001  # several blocks and a rest
    first = RNG.normal(size=size)
    first /= np.linalg.norm(first)
    other = RNG.normal(size=size)
    other -= (other @ first) * first
    other /= np.linalg.norm(other)
    angle = np.radians(degrees)
    second = np.cos(angle) * first + np.sin(angle) * other
    measured = compare(scales[0] * first, scales[1] * second).angle
    assert measured == pytest.approx(degrees, abs=2e-9)


@pytest.mark.parametrize("scale", [1, 1e30, 1e-30])
def test_equal_weights_are_at_zero(scale):
    weight = (RNG.normal(size=(300, 400)) * scale).astype(np.float32)
    assert compare(weight, weight.copy()).angle < 1e-6
    assert compare(weight, -weight).angle == pytest.approx(180, abs=1e-6)
    assert compare(weight, weight).sign_agreement == 1
    assert compare(weight, -weight).sign_agreement == 0


def test_zero_entries_have_no_sign():
    signs = {"forward": np.array([[0.0, 1, 1, -0.0, 0]]), "feedback": np.array([[1.0, 1, -1, 0, 0]])}
    assert PROBES["sign_agreement"](**signs) == 0.5
    apart = {"forward": np.array([[0.0, 1]]), "feedback": np.array([[1.0, 0]])}
    assert np.isnan(PROBES["sign_agreement"](**apart))
    assert PROBES["weight_angle"](**apart) == 90


def test_shapes_that_do_not_compare():
    given = {"forward": np.ones((2, 3)), "feedback": np.ones((10, 3))}
    direct = {"forward": np.ones((4, 3)), "feedback": np.ones((4, 3)), "direct": True}
    for quantities in (Quantities(**given), Quantities(**direct)):
        assert np.isnan(quantities["weight_angle"])
        assert np.isnan(quantities["sign_agreement"])
    assert Quantities(**given)["norm_ratio"] == pytest.approx(5**0.5)


@pytest.mark.parametrize(("shape", "groups"), [((6, 2, 3, 3), 3), ((8, 1, 3, 3), 8), ((4, 5), 2), ((6, 7, 1), 1)])
def test_groups_are_blocks(shape, groups):
    weight = RNG.normal(size=shape)
    dense = scipy.linalg.block_diag(*(block.reshape(len(block), -1) for block in np.split(weight, groups)))
    spectrum = decompose(weight, groups)
    expected = scipy.linalg.svdvals(dense)[: spectrum.values.size]
    np.testing.assert_allclose(spectrum.values, expected, rtol=1e-10)
    assert spectrum.norm == pytest.approx(np.linalg.norm(weight))


@pytest.mark.parametrize("span", [1e-2, 1e-5, 1e-9, 1e-14])
def test_ill_conditioned(span):
    left, right = (np.linalg.qr(RNG.normal(size=(30, 30)))[0] for _ in range(2))
    sigma = np.geomspace(1, span, 30)
    values = decompose(left * sigma @ right).values
    np.testing.assert_allclose(values, sigma, rtol=1e-5, atol=1e-15)


def test_signals_against_brute_force():
    names = ("delta", "delta_exact", "sent", "sent_local", "sent_exact")
    signals = {name: RNG.normal(size=(16, 4, 3, 3)).astype(np.float32) for name in names}

    def angle(a, b):
        return brute(signals[a], signals[b])["weight_angle"]

    quantities = Quantities(**signals)
    assert quantities["error_angle"] == pytest.approx(angle("delta", "delta_exact"), abs=1e-9)
    assert quantities["error_angle_local"] == pytest.approx(angle("sent", "sent_local"), abs=1e-9)
    assert quantities["error_angle_inherited"] == pytest.approx(angle("sent_local", "sent_exact"), abs=1e-9)
    assert quantities["error_angle_total"] == pytest.approx(angle("sent", "sent_exact"), abs=1e-9)
    ratio = np.linalg.norm(signals["delta"]) / np.linalg.norm(signals["delta_exact"])
    assert quantities["error_norm_ratio"] == pytest.approx(ratio, rel=1e-6)
