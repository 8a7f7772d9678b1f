"""Ranks of errors, agreement of halves and growth of blocks against plain formulas."""

import math

import numpy as np
import pytest
from scipy.linalg import svdvals

from wtdiag.probes import PROBES, Quantities

GENERATOR = np.random.default_rng(3)
SHAPES = [((50, 8), -1), ((5, 30), -1), ((6, 7, 4), -1), ((9, 4, 5, 5), 1), ((2, 40, 3, 3), 1)]


def entropy_rank(values):
    shares = values[values > 0] / values.sum()
    return math.exp(-sum(share * math.log(share) for share in shares))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "units"), SHAPES)
def test_ranks_against_singular_values(shape, units, dtype):
    ours, exact = (GENERATOR.normal(size=shape).astype(dtype) for _ in range(2))
    measured = Quantities(delta=ours, delta_exact=exact, units=units)
    for errors, end in ((ours, ""), (exact, "_exact")):
        rows = np.moveaxis(errors.astype(np.float64), units, -1)
        rows = rows.reshape(-1, rows.shape[-1])
        values = svdvals(rows)
        found = measured[f"error_spectrum{end}"]
        np.testing.assert_allclose(found, values / math.sqrt(len(rows)), rtol=1e-9)
        assert measured[f"error_effective_rank{end}"] == pytest.approx(entropy_rank(values), rel=1e-9)


def test_a_rank_is_the_number_of_equal_directions():
    basis = np.linalg.qr(GENERATOR.normal(size=(40, 40)))[0]
    for rank in (1, 3, 12):
        errors = np.tile(basis[:rank], (4, 1))
        assert PROBES["error_effective_rank"](delta=errors) == pytest.approx(rank, abs=1e-6)


def test_errors_of_one_direction_in_far_scales():
    one = np.outer(GENERATOR.normal(size=20), GENERATOR.normal(size=6))
    for scale in (1e-200, 1.0, 1e200):
        assert PROBES["error_effective_rank"](delta=scale * one) == pytest.approx(1, abs=1e-6)


def test_chance_is_the_rank_of_gaussian_errors():
    drawn = [entropy_rank(svdvals(GENERATOR.normal(size=(30, 12)))) for _ in range(200)]
    mean, sd = Quantities(delta=np.ones((30, 12)), units=-1).null("error_effective_rank")
    assert mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(200))
    assert sd == pytest.approx(np.std(drawn), rel=0.3)


def test_halves_that_agree_by_chance_only():
    """The spread by chance is that of random signs of each unit's gradient."""
    first, second = GENERATOR.normal(size=(2, 10, 7)) * np.geomspace(1, 5, 10)[:, None]
    signs = GENERATOR.choice([-1.0, 1.0], size=(4000, 10, 1))
    flipped = np.einsum("sij,ij->s", signs * first, second) / np.linalg.norm(first) / np.linalg.norm(second)
    halves = {"half_gradient": first, "other_half_gradient": second}
    mean, sd = Quantities(**halves).null("credit_angle")
    assert mean == 90
    assert math.sin(math.radians(sd)) == pytest.approx(np.std(flipped), rel=0.06)
    cosine = np.vdot(first, second) / np.linalg.norm(first) / np.linalg.norm(second)
    assert PROBES["credit_angle"](**halves) == pytest.approx(math.degrees(math.acos(cosine)))


def test_growth_compares_sizes_of_different_shapes():
    before = GENERATOR.normal(size=(8, 3, 4, 4))
    assert PROBES["residual_growth"](entering=before, leaving=20 * np.tile(before, (1, 2, 1, 1))) == pytest.approx(20)


def test_fresh_angles_are_summed_up():
    drawn = {"error_angle": [80.0, 100.0, 90.0]}
    given = {"fresh_angles": lambda: drawn}
    assert PROBES["error_angle_fresh"](**given) == 90
    assert PROBES["error_angle_fresh_sd"](**given) == pytest.approx(10)
    assert math.isnan(PROBES["projection_angle_fresh"](**given))
    assert PROBES["error_angle_fresh"].slow
