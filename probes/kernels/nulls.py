"""Chance levels of the measures: their values for two independent Gaussian arrays of the same shape."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal
from scipy.special import poch, polygamma

from wtdiag.probes.kernels.comparison import Comparison

Array = NDArray[Any]

_MODES_DRAWN = 2**13  # number of modes over all draws: large matrices, which fluctuate less, are drawn less often
_ANGLES_DRAWN = 2**16
_ROWS_DRAWN = 32


def spread(size: int) -> float:
    """Return the standard deviation, in radians, of the angle between two independent Gaussian vectors.

    For ``size`` entries it is √(ψ₁(size / 2) / 2) with the trigamma function ψ₁, from the angle's density
    ∝ sin^(size - 2): 90° for one entry, close to 57.3° / √size for many.

    Examples
    --------
    >>> round(math.degrees(spread(1)), 6), round(math.degrees(spread(10_000)), 3)
    (90.0, 0.573)
    """
    return math.sqrt(float(polygamma(1, size / 2)) / 2) if size else math.nan


def angle_null(comparison: Comparison) -> tuple[float, float]:
    """Return 90° and the `spread` in degrees."""
    return 90.0, math.degrees(spread(comparison.size))


def error_angle_null(first: Array, second: Array, comparison: Comparison, units: int) -> tuple[float, float]:
    """Return 90° and arcsin √Σᵤ ⟨firstᵤ, secondᵤ⟩² / (‖first‖ ‖second‖): each unit's error has a random sign.

    The entries of error signals are far from independent: examples share a few class directions, positions of a map
    share a kernel, and silent units are silent in both. Between randomly initialised networks, the angle scatters 3
    (dense) to 19 (convolutional) times as much as that of Gaussian arrays of the same size. Flipping the signs of
    whole units keeps these dependences, and reproduced that scatter within 11 %.

    Parameters
    ----------
    first, second
        The errors; the first axis counts the examples.
    comparison
        Comparison of the two.
    units
        Axis of the units: the features or the channels.
    """
    if math.isnan(comparison.angle):
        return 90.0, math.nan
    a, b = (np.moveaxis(errors, units, 0).reshape(errors.shape[units], -1) for errors in (first, second))
    shares = np.einsum("ui,ui->u", a / comparison.first_norm, b / comparison.second_norm, dtype=np.float64)
    return 90.0, math.degrees(math.asin(min(float(np.linalg.norm(shares)), 1.0)))


def sign_agreement_null(comparison: Comparison) -> tuple[float, float]:
    """Return ½ and ½ / √pairs: the agreement is a binomial share of the entries that are nonzero in both arrays."""
    return 0.5, 0.5 / math.sqrt(comparison.pairs) if comparison.pairs else math.nan


def norm_ratio_null(comparison: Comparison) -> tuple[float, float]:
    """Return mean and standard deviation of √F for Fisher's distribution with (size, size) degrees of freedom.

    NaN where they are infinite: both for one entry, and the standard deviation for two.
    """
    size = comparison.size
    mean = float(poch(size / 2, 0.5) / poch((size - 1) / 2, 0.5)) if size > 1 else math.nan
    return mean, math.sqrt(size / (size - 2) - mean * mean) if size > 2 else math.nan


def relative_distance_null(comparison: Comparison, norm_ratio: float) -> tuple[float, float]:
    """Return mean and standard deviation of √(1 + r² - 2rc) for the norm ratio r and the cosine c of random arrays.

    They follow from the three-point Gauss rule for the density of c ∝ (1 - c²)^((size - 3) / 2), with the nodes 0 and
    ±√(3 / (size + 2)).
    """
    size, r = comparison.size, norm_ratio
    if not size or math.isnan(r):
        return math.nan, math.nan
    node, weight = math.sqrt(3 / (size + 2)), (size + 2) / (6 * size)
    near, middle, far = (math.sqrt((1 - r) ** 2 + 2 * r * (1 - c)) for c in (node, 0, -node))
    mean = middle + weight * (near - middle + far - middle)
    variance = weight * ((near - mean) ** 2 + (far - mean) ** 2) + (1 - 2 * weight) * (middle - mean) ** 2
    return mean, math.sqrt(max(variance, 0.0))


@lru_cache(maxsize=256)
def random_unit_angles(units: int, fan_in: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the quartiles of ``units`` angles between Gaussian vectors, in degrees.

    The angles are drawn from a fixed seed. The cosine between two vectors of ``fan_in`` entries is z / √(z² + χ²), with
    a normal z and a chi-square of fan_in - 1 degrees of freedom.

    Examples
    --------
    >>> [round(mean) for mean in random_unit_angles(1, 3)[0]]
    [90, 90, 90]
    """
    if not units * fan_in:
        return (math.nan,) * 3, (math.nan,) * 3
    draws = min(max(_ANGLES_DRAWN // units, 64), 4096)
    generator = np.random.default_rng(0)
    z = generator.normal(size=(draws // 2, units))
    others = generator.chisquare(fan_in - 1, size=z.shape) if fan_in > 1 else np.zeros(z.shape)
    angles = np.degrees(np.arctan2(np.sqrt(others), z))
    # Each draw is used with its mirror image, because by symmetry the mean of the median is 90.
    quartiles = np.quantile(np.concatenate([angles, 180 - angles]), (0.25, 0.5, 0.75), axis=1)
    return tuple(map(float, quartiles.mean(axis=1))), tuple(map(float, quartiles.std(axis=1)))


@lru_cache(maxsize=256)
def random_spectra(rows: int, columns: int, blocks: int = 1) -> NDArray[np.float64]:
    """Return drawn spectra of block-diagonal Gaussian matrices with Frobenius norm 1: (draw, mode), descending.

    A Gaussian matrix has the singular values of a bidiagonal one with independent chi entries (Dumitriu and
    Edelman 2002, arXiv:math-ph/0206043). This costs O(modes²) per draw and holds for every shape, unlike the
    Marchenko-Pastur law, which is the limit for large matrices. The seed is fixed.

    Parameters
    ----------
    rows, columns
        Shape of each block.
    blocks
        Number of independent blocks; the modes are those of all blocks together.

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
        # Entries below the diagonal. In each block's last row there are no degrees of freedom, so the entry is 0.
        below = np.zeros(modes)
        inner = freedom < rows - 1
        below[inner] = generator.chisquare(rows - 1 - freedom[inner])
        gram = diagonal.copy()
        gram[1:] += below[:-1]
        eigenvalues = eigvalsh_tridiagonal(gram, np.sqrt(diagonal * below)[:-1], lapack_driver="sterf")
        spectra[draw] = np.sqrt(np.maximum(eigenvalues[::-1], 0) / gram.sum())
    spectra.flags.writeable = False
    return spectra


@lru_cache(maxsize=256)
def random_principal_angles(dimension: int, modes: int, blocks: int = 1) -> tuple[tuple[float, float], ...]:
    """Return mean and standard deviation of the mean and of the largest of drawn angles between random subspaces.

    The angles are in degrees, over ``blocks`` independent pairs of subspaces of ``modes`` dimensions in a space of
    ``dimension``. Their cosines are the singular values of a corner of a random rotation: of the first rows of Q in the
    QR factors of a Gaussian matrix, whose rows after the first ``modes`` are replaced by their own triangular factor.

    Examples
    --------
    >>> [round(value) for value in random_principal_angles(3, 3)[0]]
    [0, 0]
    """
    draws = min(max(_ANGLES_DRAWN // 16 // (modes * blocks), 16), 512)
    generator = np.random.default_rng(0)
    top = generator.normal(size=(draws * blocks, modes, modes))
    rest = min(dimension - modes, modes)
    below = np.triu(generator.normal(size=(draws * blocks, rest, modes)), 0 if dimension - modes >= modes else -modes)
    if dimension - modes >= modes:
        freedom = dimension - modes - np.arange(modes)
        below[:, np.arange(modes), np.arange(modes)] = np.sqrt(generator.chisquare(freedom, size=(len(top), modes)))
    rotation = np.linalg.qr(np.concatenate([top, below], axis=1))[0]
    cosines = np.linalg.svd(rotation[:, :modes], compute_uv=False)
    angles = np.degrees(np.arccos(np.minimum(cosines, 1))).reshape(draws, -1) if rest else np.zeros((draws, 1))
    return tuple((float(a.mean()), float(a.std())) for a in (angles.mean(axis=1), angles.max(axis=1)))


@lru_cache(maxsize=256)
def random_rightmost(rows: int, columns: int, blocks: int = 1) -> tuple[float, float]:
    """Return mean and standard deviation of the largest real part of the eigenvalues of WBᵀ, by chance.

    W and B are Gaussian with Frobenius norm 1, in ``blocks`` of (rows, columns) with rows ≤ columns. An orthogonal
    change of basis makes W triangular, with chi entries on the diagonal, so a draw costs O(rows³) for every width. For
    more than 32 rows, both numbers follow from those for 32: the mean times √(rows · columns · blocks²) is within
    O(1 / rows) of 1, the radius of the circular law, and the spread falls as 1 / √rows.

    Examples
    --------
    >>> mean, sd = random_rightmost(512, 512)
    >>> round(512 * mean, 1), 512 * sd < 0.05
    (1.0, True)
    """
    drawn = min(rows, _ROWS_DRAWN)
    width = round(columns * drawn / rows)
    draws = min(max(_MODES_DRAWN // (drawn * blocks), 8), 256)
    generator = np.random.default_rng(0)
    shape = draws, blocks, drawn, drawn
    w, b = np.tril(generator.normal(size=shape), -1), generator.normal(size=shape)
    w[..., np.arange(drawn), np.arange(drawn)] = np.sqrt(generator.chisquare(width - np.arange(drawn), shape[:3]))
    rest = generator.chisquare(drawn * (width - drawn) * blocks, draws) if width > drawn else 0.0
    norms = np.sqrt((w**2).sum(axis=(1, 2, 3)) * ((b**2).sum(axis=(1, 2, 3)) + rest))
    rightmost = np.linalg.eigvals(w @ b.swapaxes(-1, -2)).real.max(axis=(1, 2)) / norms
    rightmost *= math.sqrt(drawn * width) * blocks
    mean = 1 - (1 - float(rightmost.mean())) * drawn / rows
    sd = float(rightmost.std()) * math.sqrt(drawn / rows)
    size = math.sqrt(rows * columns) * blocks
    return mean / size, sd / size
