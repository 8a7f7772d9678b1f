"""Every probe against brute force in float64, and where float arithmetic is hardest."""

import numpy as np
import pytest
import scipy.linalg

from tests.probes.brute_force import brute, of_both
from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.kernels.comparison import compare
from wtdiag.probes.measures.spectra.singular_values import decompose

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


# Where rounding, not the method, limits what two ways to compute it can share, relative to a scale of their own.
LOOSE = {
    "condition_number": 1e-7,
    "principal_angle_mean": 1e-7,
    "principal_angle_max": 1e-7,
    "descent_eigenvalue": 1e-8,
}


def check(forward, feedback, rtol=1e-9):
    quantities = Quantities(forward=forward, feedback=feedback)
    for name, expected in brute(forward, feedback).items():
        loose = next((value for end, value in LOOSE.items() if name.endswith(end)), 0)
        small = 1e-10 * np.max(expected) if "singular" in name else loose if "angle" in name else 0
        if name == "descent_eigenvalue":
            small = 1e-12 * quantities["forward_spectral_norm"] * quantities["feedback_spectral_norm"]
        np.testing.assert_allclose(
            quantities[name], np.asarray(expected, np.float64), rtol=max(rtol, loose), atol=small, err_msg=name
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
    for dtype in (np.float64, np.float32):  # what rounding adds to a rank of one is no tail and no direction
        quantities = Quantities(forward=rank_one.astype(dtype), feedback=pair((12, 17), dtype)[0])
        for name in ("power_law_alpha", "condition_number"):
            assert np.isnan(quantities[f"forward_{name}"])
        assert np.isnan(quantities["output_principal_angle_mean"])
        assert quantities["forward_effective_rank"] == pytest.approx(1, abs=1e-12)
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


@pytest.mark.parametrize("groups", [1, 2])
def test_units_of_a_transposed_convolution(groups):
    w, b = pair((6, 4, 3), np.float64)  # (in, out / groups, width)
    units = [
        (x[:, unit], y[:, unit])
        for x, y in zip(np.split(w, groups), np.split(b, groups), strict=True)
        for unit in range(4)
    ]
    angles = [PROBES["weight_angle"](forward=x, feedback=y) for x, y in units]
    median = PROBES["unit_angle_median"](forward=w, feedback=b, groups=groups, transposed=True)
    assert median == pytest.approx(np.median(angles), abs=1e-9)


def test_units_without_weights_do_not_count():
    w, b = pair((5, 8), np.float64)
    w[1] = b[3] = 0
    check(w, b)
    assert np.isnan(PROBES["unit_angle_median"](forward=w, feedback=np.diag([0, 1, 0, 0, 0]) @ b))


@pytest.mark.parametrize("degrees", [1e-6, 1e-3, 0.05, 90, 179.999])
def test_known_unit_angles(degrees):
    first, other = np.linalg.qr(RNG.normal(size=(30, 2)))[0].T
    second = np.cos(np.radians(degrees)) * first + np.sin(np.radians(degrees)) * other
    w, b = np.outer([1, 1e-30, 1e30], first), np.outer([1e30, 1, 1e-30], second)
    assert PROBES["unit_angle_median"](forward=w, feedback=b) == pytest.approx(degrees, abs=1e-10)


def test_distance_of_weights_that_nearly_agree():
    w, b = pair((40, 50), np.float64)
    for apart in (1e-3, 1e-7, 1e-12):
        measured = PROBES["relative_distance"](forward=w, feedback=w + apart * b)
        assert measured == pytest.approx(apart * np.linalg.norm(b) / np.linalg.norm(w), rel=1e-2)


def test_descent_of_defective_and_singular_products():
    eigenvalue = PROBES["descent_eigenvalue"]
    assert eigenvalue(forward=np.eye(4), feedback=np.eye(4, k=1)) == 0  # nilpotent
    assert eigenvalue(forward=np.eye(4), feedback=np.eye(4)[[1, 2, 3, 0]]) == pytest.approx(-1)
    rank_one = np.outer(RNG.normal(size=5), RNG.normal(size=7))
    assert eigenvalue(forward=rank_one, feedback=rank_one) == 0
    assert eigenvalue(forward=np.eye(3), feedback=np.zeros((3, 3))) == 0


def test_signals_against_brute_force():
    names = ("delta", "delta_exact", "sent", "sent_local", "sent_exact")
    signals = {name: RNG.normal(size=(16, 4, 3, 3)).astype(np.float32) for name in names}

    def angle(a, b):
        return of_both(signals[a], signals[b])["weight_angle"]

    quantities = Quantities(**signals)
    assert quantities["error_angle"] == pytest.approx(angle("delta", "delta_exact"), abs=1e-9)
    assert quantities["error_angle_local"] == pytest.approx(angle("sent", "sent_local"), abs=1e-9)
    assert quantities["error_angle_inherited"] == pytest.approx(angle("sent_local", "sent_exact"), abs=1e-9)
    assert quantities["error_angle_total"] == pytest.approx(angle("sent", "sent_exact"), abs=1e-9)
    ratio = np.linalg.norm(signals["delta"]) / np.linalg.norm(signals["delta_exact"])
    assert quantities["error_norm_ratio"] == pytest.approx(ratio, rel=1e-6)
