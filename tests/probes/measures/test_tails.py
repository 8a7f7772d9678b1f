"""Power laws against a search over every start, and those that are known."""

import numpy as np
import pytest

from tests.probes.brute_force import power_law
from wtdiag.probes.measures.spectra.tails import fit_power_law

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [2, 3, 10, 60, 300])
@pytest.mark.parametrize("kind", ["pareto", "exponential", "normal", "ties", "bulk and tail"])
def test_power_law_is_that_of_a_search_over_every_start(kind, size):
    values = {
        "pareto": RNG.pareto(1.5, size) + 1,
        "exponential": RNG.exponential(size=size) + 1e-3,
        "normal": RNG.normal(size=size) ** 2,
        "ties": RNG.integers(1, 6, size).astype(float),
        "bulk and tail": np.append(RNG.uniform(0.5, 1, size // 2), RNG.pareto(1, size - size // 2) + 1),
    }[kind]
    law = fit_power_law(np.log(values))
    np.testing.assert_allclose((law.alpha, law.distance, law.xmin, law.n), power_law(values), rtol=1e-9)


def test_power_law_finds_its_own():
    generator = np.random.default_rng(0)
    law = fit_power_law(np.log(np.append(generator.uniform(0, 1, 2000), generator.pareto(1.5, 3000) + 1)))
    assert law.alpha == pytest.approx(2.5, abs=0.15)
    assert 0.9 < law.xmin < 3  # above the bulk
    assert law.distance < 0.03


def test_equal_or_single_values_have_no_tail():
    for values in ([], [1.0], [0.5, 0.5, 0.5]):
        assert np.isnan(fit_power_law(np.array(values)).alpha)
