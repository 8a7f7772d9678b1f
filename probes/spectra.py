"""Singular values of the weights, and what follows from them: one decomposition per matrix.

A convolution's kernel is unfolded to the matrix (out, in · kh · kw) that multiplies a patch (for a transposed
convolution, whose first axis is the input, to (in, out · kh · kw)); with groups, to one such block per group,
and its singular values are those of all blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.nulls import random_spectra
from probes.registry import probe, shared

_BOTH = ("forward", "feedback")
# A Gram matrix gives singular values down to σ₁ / 10⁶, with a relative error of 3e-5 there.
_GRAM_RESOLVES = 1e-12


@dataclass(frozen=True)
class Spectrum:
    """Singular values, descending, and the shape of the matrix that they belong to.

    Attributes
    ----------
    values : ndarray
        blocks · min(rows, columns) numbers; all NaN where an entry of the matrix is not finite.
    rows, columns, blocks : int
        Shape of each block of the block-diagonal matrix.
    """

    values: NDArray[np.float64]
    rows: int
    columns: int
    blocks: int

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return math.hypot(*self.values)

    @property
    def random(self) -> NDArray[np.float64]:
        """Spectra (draw, mode) of Gaussian matrices of this shape with Frobenius norm 1."""
        return random_spectra(self.rows, self.columns, self.blocks)


def decompose(weight: NDArray[Any], groups: int = 1) -> Spectrum:
    """Compute the singular values of a weight of any rank, in float64.

    From the Gram matrix, six times as fast as a singular value decomposition; from the latter where
    the spectrum spans more than a Gram matrix resolves.

    Parameters
    ----------
    weight
        (out, in) or (out, in, ...).
    groups
        Number of groups that the first axis is made of.

    Examples
    --------
    >>> decompose(np.array([[3.0, 0.0], [0.0, -4.0]])).values
    array([4., 3.])
    """
    rows, columns = weight.shape[0] // groups, math.prod(weight.shape[1:])
    blocks = weight.reshape(groups, rows, columns)
    largest = float(np.max(np.abs(blocks), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        modes = groups * min(rows, columns)
        return Spectrum(np.full(modes, 0.0 if largest == 0 else math.nan), rows, columns, groups)
    matrices = blocks.astype(np.float64)
    exponent = 0
    if not 1e-100 < largest < 1e100:  # squares have to stay in range
        exponent = math.frexp(largest)[1]
        matrices = np.ldexp(matrices, -exponent)
    if rows > columns:
        matrices = matrices.transpose(0, 2, 1)
    values = np.sort(_singular_values(matrices), axis=None)[::-1]
    with np.errstate(all="ignore"):
        return Spectrum(np.ldexp(values, exponent), rows, columns, groups)


def _singular_values(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        squares = np.linalg.eigvalsh(matrices @ matrices.transpose(0, 2, 1))
        if (squares[:, 0] >= _GRAM_RESOLVES * squares[:, -1]).all():
            return np.asarray(np.sqrt(squares))
    except np.linalg.LinAlgError:
        pass
    try:
        values = np.linalg.svd(matrices, compute_uv=False)
        return values.astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return np.full(matrices.shape[:2], math.nan)


@shared
def forward_spectrum(forward: NDArray[Any], groups: int = 1) -> Spectrum:
    """Spectrum of W."""
    return decompose(forward, groups)


@shared
def feedback_spectrum(feedback: NDArray[Any], groups: int = 1, direct: bool = False) -> Spectrum:
    """Spectrum of B; feedback straight from the output has no groups."""
    return decompose(feedback, 1 if direct else groups)


def _singular_values_null(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return spectrum.norm * spectrum.random.mean(axis=0), spectrum.norm * spectrum.random.std(axis=0)


@probe(
    units="1",
    long_name="singular values of the {side} weights",
    equation="σ₁ ≥ σ₂ ≥ …; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Golub and Van Loan 2013, Matrix Computations, section 2.4",
    null=_singular_values_null,
    dims=("mode",),
    sides=_BOTH,
)
def singular_values(spectrum: Spectrum) -> NDArray[np.float64]:
    """All singular values, descending; by chance, those of a Gaussian matrix of equal shape and norm.

    Examples
    --------
    >>> from probes import PROBES
    >>> PROBES["forward_singular_values"](forward=np.array([[3.0, 0.0], [0.0, -4.0]]))
    array([4., 3.])
    """
    return spectrum.values


def _spectral_norm_null(spectrum: Spectrum) -> tuple[float, float]:
    mean, sd = _singular_values_null(spectrum)
    return (float(mean[0]), float(sd[0])) if mean.size else (math.nan, math.nan)


@probe(
    units="1",
    long_name="spectral norm of the {side} weights",
    equation="σ₁; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Golub and Van Loan 2013, Matrix Computations, section 2.3",
    null=_spectral_norm_null,
    sides=_BOTH,
)
def spectral_norm(spectrum: Spectrum) -> float:
    """Largest singular value.

    Examples
    --------
    >>> from probes import PROBES
    >>> PROBES["feedback_spectral_norm"](feedback=np.array([[3.0, 0.0], [0.0, -4.0]]))
    4.0
    """
    return float(spectrum.values[0]) if spectrum.values.size else math.nan


def _stable_rank_null(spectrum: Spectrum) -> tuple[float, float]:
    if not spectrum.values.size:
        return math.nan, math.nan
    ranks = spectrum.random[:, 0] ** -2
    return float(ranks.mean()), float(ranks.std())


@probe(
    units="1",
    long_name="stable rank of the {side} weights",
    equation="Σ σᵢ² / σ₁²; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Rudelson and Vershynin 2007, arXiv:math/0503442",
    null=_stable_rank_null,
    sides=_BOTH,
)
def stable_rank(spectrum: Spectrum) -> float:
    """Squared Frobenius norm over squared spectral norm: 1 for rank one, the rank for equal singular values.

    Examples
    --------
    >>> from probes import PROBES
    >>> PROBES["forward_stable_rank"](forward=np.eye(3))
    3.0
    """
    if not spectrum.values.size or not spectrum.values[0] > 0:
        return math.nan
    return float(np.sum((spectrum.values / spectrum.values[0]) ** 2))
