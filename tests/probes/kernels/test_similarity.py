"""Similarity of representations on matrices whose answer is known."""

import itertools
import math

import numpy as np
import pytest

from wtdiag.probes.errors import InputError
from wtdiag.probes.kernels.similarity import linear_cka, procrustes_distance

GENERATOR = np.random.default_rng(5)


@pytest.mark.parametrize("shape", [(30, 6), (12, 40)])
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-200])
def test_a_rotation_changes_nothing(shape, scale):
    x = GENERATOR.normal(size=shape)
    rotation = np.linalg.qr(GENERATOR.normal(size=(shape[1], shape[1])))[0]
    assert linear_cka(x, scale * x @ rotation) == pytest.approx(1, abs=1e-12)
    assert procrustes_distance(x, scale * x @ rotation) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "first", "second"), [(40, 8, 8), (24, 60, 10), (10, 200, 300)])
def test_independent_representations_have_no_cka(n, first, second):
    """Where the plain one is near 1, the debiased one is zero in the mean."""
    drawn = [linear_cka(GENERATOR.normal(size=(n, first)), GENERATOR.normal(size=(n, second))) for _ in range(200)]
    assert abs(np.mean(drawn)) < 4 * np.std(drawn) / math.sqrt(len(drawn))


def test_the_estimator_is_the_mean_over_all_quadruples():
    """Song's estimator by brute force, over ordered quadruples of different examples."""
    x, y = GENERATOR.normal(size=(6, 2)), GENERATOR.normal(size=(6, 3))

    def hsic(k, gram):
        terms = [
            k[i, j] * (gram[i, j] + gram[q, r] - 2 * gram[i, q])
            for i, j, q, r in itertools.permutations(range(len(k)), 4)
        ]
        return float(np.mean(terms))

    k, gram = x @ x.T, y @ y.T
    expected = hsic(k, gram) / math.sqrt(hsic(k, k) * hsic(gram, gram))
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-10)


def test_procrustes_is_the_least_distance_over_rotations():
    x, y = GENERATOR.normal(size=(2, 15, 2))
    x, y = (each - each.mean(0) for each in (x, y))
    x, y = (each / np.linalg.norm(each) for each in (x, y))
    angles = np.linspace(0, 2 * np.pi, 20001)
    c, s = np.cos(angles), np.sin(angles)
    turns = [np.array([[c, -s], [s, c]]), np.array([[c, s], [s, -c]])]
    least = min(np.linalg.norm(x[None] - np.einsum("ni,ijk->knj", y, turn), axis=(1, 2)).min() for turn in turns)
    assert procrustes_distance(x, y) == pytest.approx(least, abs=1e-6)


def test_orthogonal_subspaces_are_as_far_as_can_be():
    q = np.linalg.qr(np.column_stack([np.ones(20), GENERATOR.normal(size=(20, 6))]))[0][:, 1:]
    assert procrustes_distance(q[:, :3], q[:, 3:]) == pytest.approx(math.sqrt(2))


def test_what_does_not_vary_has_no_similarity():
    x = GENERATOR.normal(size=(10, 3))
    for bad in (np.ones((10, 3)), np.full((10, 3), np.nan)):
        assert math.isnan(linear_cka(x, bad))
        assert math.isnan(procrustes_distance(x, bad))


def test_unequal_batches_are_refused():
    with pytest.raises(InputError, match=r"have 10 and 9; expected the same ones$"):
        linear_cka(np.ones((10, 2)), np.ones((9, 2)))
