"""What the measures would be by chance: two independent Gaussian arrays of the same shape."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import polygamma

from probes.comparison import Comparison

Array = NDArray[Any]

_MODES_DRAWN = 2**13  # drawn modes in all, so that large matrices, which fluctuate less, are drawn less often


def spread(size: int) -> float:
    """Compute the standard deviation, in radians, of the angle between two independent Gaussian vectors.

    For ``size`` entries √(ψ₁(size / 2) / 2) with the trigamma function ψ₁, from the angle's density
    ∝ sin^(size - 2): 90° for one entry, close to 57.3° / √size for many. The logarithm of the ratio of the
    vectors' norms has the same.

    Examples
    --------
    >>> round(math.degrees(spread(1)), 6), round(math.degrees(spread(10_000)), 3)
    (90.0, 0.573)
    """
    return math.sqrt(float(polygamma(1, size / 2)) / 2) if size else math.nan


def angle_null(comparison: Comparison) -> tuple[float, float]:
    """90° ± `spread`."""
    return 90.0, math.degrees(spread(comparison.size))


def error_angle_null(first: Array, second: Array, comparison: Comparison, units: int) -> tuple[float, float]:
    """90° ± arcsin √Σᵤ ⟨firstᵤ, secondᵤ⟩² / (‖first‖ ‖second‖): each unit's error with a random sign.

    Error signals are far from independent numbers: examples share a few class directions, positions of a map
    share a kernel, silent units are silent in both. Between randomly initialised networks the angle scatters
    3 (dense) to 19 (convolutional) times as much as that of Gaussian arrays of the same size. Flipping whole
    units keeps all of this, and gave that scatter within 11 %.

    Parameters
    ----------
    first, second
        The errors, examples first.
    comparison
        Of the two.
    units
        Axis of the units: the features or the channels.
    """
    if math.isnan(comparison.angle):
        return 90.0, math.nan
    a, b = (np.moveaxis(errors, units, 0).reshape(errors.shape[units], -1) for errors in (first, second))
    shares = np.einsum("ui,ui->u", a / comparison.first_norm, b / comparison.second_norm, dtype=np.float64)
    return 90.0, math.degrees(math.asin(min(float(np.linalg.norm(shares)), 1.0)))


def sign_agreement_null(comparison: Comparison) -> tuple[float, float]:
    """½ ± ½ / √size, of a binomial share."""
    return 0.5, 0.5 / math.sqrt(comparison.size) if comparison.size else math.nan


def norm_ratio_null(comparison: Comparison) -> tuple[float, float]:
    """1 ± `spread`: the median, and the standard deviation of the ratio's logarithm."""
    return 1.0, spread(comparison.size)


@lru_cache(maxsize=256)
def random_spectra(rows: int, columns: int, blocks: int = 1) -> NDArray[np.float64]:
    """Draw spectra of block-diagonal Gaussian matrices with Frobenius norm 1; (draw, mode), descending.

    A Gaussian matrix has the singular values of a bidiagonal one with independent chi entries (Dumitriu and
    Edelman 2002, arXiv:math-ph/0206043), which costs O(modes²) a draw and holds for every shape, unlike
    the Marchenko-Pastur law, its limit for large matrices. Drawn from a fixed seed.

    Parameters
    ----------
    rows, columns
        Shape of each block.
    blocks
        Number of independent blocks; the modes are those of all.

    Examples
    --------
    >>> random_spectra(1, 5)[0]
    array([1.])
    """
    rows, columns = sorted((rows, columns))
    modes = rows * blocks
    if not modes:
        return np.empty((1, 0))
    draws = min(max(_MODES_DRAWN // modes, 8), 256)
    generator = np.random.default_rng(0)
    spectra = np.empty((draws, modes))
    freedom = np.tile(np.arange(rows), blocks)
    for draw in range(draws):
        diagonal = generator.chisquare(columns - freedom)
        # The entry below the diagonal; its degree of freedom 0 in each block's last row makes it 0 there.
        below = np.zeros(modes)
        inner = freedom < rows - 1
        below[inner] = generator.chisquare(rows - 1 - freedom[inner])
        gram = diagonal.copy()
        gram[1:] += below[:-1]
        eigenvalues = eigvalsh_tridiagonal(gram, np.sqrt(diagonal * below)[:-1], lapack_driver="sterf")
        spectra[draw] = np.sqrt(np.maximum(eigenvalues[::-1], 0) / gram.sum())
    spectra.flags.writeable = False
    return spectra
