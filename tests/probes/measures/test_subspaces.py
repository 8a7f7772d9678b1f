"""Principal angles where arithmetic is hardest, and what they share with the spectra."""

import numpy as np
import pytest

from tests.probes.brute_force import of_subspaces
from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.measures.spectra.subspaces import principal_angles

RNG = np.random.default_rng(0)


def pair(shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype), RNG.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("degrees", [0, 1e-9, 1e-4, 30, 45, 89.9999, 90])
def test_principal_angles_are_exact_everywhere(degrees):
    turn = np.radians(degrees)
    first = np.eye(5)[:, :2]
    second = np.array([[np.cos(turn), 0, np.sin(turn), 0, 0], [0, 1, 0, 0, 0]]).T
    rotation = np.linalg.qr(RNG.normal(size=(5, 5)))[0]
    np.testing.assert_allclose(principal_angles(rotation @ first, rotation @ second)[1], degrees, atol=1e-13 * 57 * 4)


def test_vectors_that_come_with_the_values_are_the_same():
    for shape, groups in (((30, 40), 1), ((40, 30), 1), ((12, 4, 3, 3), 3), ((8, 1, 3, 3), 8)):
        given = dict(zip(("forward", "feedback"), pair(shape), strict=True)) | {"groups": groups}
        alone, shared = Quantities(**given), Quantities(**given, vectors=10)
        for name in (name for name in PROBES if "principal" in name or "singular" in name):
            np.testing.assert_allclose(shared[name], alone[name], rtol=1e-9, atol=1e-9)


def test_groups_have_subspaces_and_products_of_their_own():
    w, b = pair((12, 5, 3), np.float64)
    parts = [Quantities(forward=x, feedback=y) for x, y in zip(np.split(w, 3), np.split(b, 3), strict=True)]
    whole = Quantities(forward=w, feedback=b, groups=3)
    assert whole["descent_eigenvalue"] == pytest.approx(min(part["descent_eigenvalue"] for part in parts))
    for side in ("output", "input"):
        name = f"{side}_principal_angle_"
        assert whole[name + "mean"] == pytest.approx(np.mean([part[name + "mean"] for part in parts]))
        assert whole[name + "max"] == pytest.approx(max(part[name + "max"] for part in parts))


@pytest.mark.parametrize("span", [1e-2, 1e-5, 1e-9])
@pytest.mark.parametrize("modes", [4, 10])
def test_subspaces_of_ill_conditioned_weights(span, modes):
    """Of 12 modes, σ from 1 to ``span``; the first ``modes`` are compared.""" ""
    weights = []
    for _ in range(2):
        left, right = (np.linalg.qr(RNG.normal(size=(size, 12)))[0] for size in (15, 12))
        weights.append(left * np.geomspace(1, span, 12) @ right.T)
    quantities = Quantities(forward=weights[0], feedback=weights[1], vectors=modes)
    for name, expected in of_subspaces(*weights, modes).items():
        assert quantities[name] == pytest.approx(expected, abs=1e-5), name


def test_subspaces_left_open_by_ties_have_no_angle():
    for weight in (np.eye(20), np.outer(np.ones(20), np.arange(20.0))):
        quantities = Quantities(forward=weight, feedback=RNG.normal(size=(20, 20)))
        assert np.isnan(quantities["output_principal_angle_mean"])
        assert np.isnan(quantities["input_principal_angle_max"])
