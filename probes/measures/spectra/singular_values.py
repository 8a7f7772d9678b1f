"""Singular values of the weights, from one decomposition per matrix that all measures share.

A convolution's kernel is unfolded to the matrix (out, in · kh · kw) that multiplies a patch. For a transposed
convolution, whose first axis is the input, the matrix is (in, out · kh · kw). With groups there is one such block per
group, and the singular values are those of all blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.nulls import random_spectra
from wtdiag.probes.registry import declare, shared

SIDES = ("forward", "feedback")
# A Gram matrix gives singular values down to σ₁ / 10⁶, with a relative error of 3e-5 there.
_GRAM_RESOLVES = 1e-12
_APART = 1e-9  # singular values closer than this, relative to the largest, have no subspaces of their own

declare(vectors="how many singular vectors to compute with the singular values")

Subspaces = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix, descending, and the shape of the matrix.

    Attributes
    ----------
    values : ndarray
        blocks · min(rows, columns) numbers; all of them are NaN if an entry of the matrix is not finite.
    rows, columns, blocks : int
        Shape of each block of the block-diagonal matrix.
    subspaces : tuple of ndarray or None
        The left and the right singular vectors, (block, row or column, mode), of each block's largest singular
        values; None if they were not requested, NaN if ties or zeros leave the subspace undetermined.
    rounding : float
        Size up to which a singular value may be due to rounding, of the entries and in the decomposition.
    """

    values: NDArray[np.float64]
    rows: int
    columns: int
    blocks: int
    subspaces: Subspaces | None = None
    rounding: float = 0.0

    @property
    def norm(self) -> float:
        """Frobenius norm."""
        return math.hypot(*self.values)

    @property
    def nonzero(self) -> NDArray[np.float64]:
        """Singular values above `rounding`; empty if an entry is not finite."""
        return np.asarray(self.values[self.values > self.rounding])

    @property
    def random(self) -> NDArray[np.float64]:
        """Spectra (draw, mode) of Gaussian matrices of this shape with Frobenius norm 1."""
        return random_spectra(self.rows, self.columns, self.blocks)


def decompose(weight: NDArray[Any], groups: int = 1, vectors: int = 0) -> Spectrum:
    """Return the singular values of a weight with any number of axes, computed in float64.

    They come from the Gram matrix, which is six times as fast as a singular value decomposition, or from the latter
    if the spectrum spans more than a Gram matrix resolves.

    Parameters
    ----------
    weight
        (out, in) or (out, in, ...).
    groups
        Number of groups into which the first axis is divided.
    vectors
        Number of singular vectors of each block to compute as well, which takes two to three times as long.

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
    if not 1e-100 < largest < 1e100:  # keeps squares in range
        exponent = math.frexp(largest)[1]
        matrices = np.ldexp(matrices, -exponent)
    if rows > columns:
        matrices = matrices.transpose(0, 2, 1)
    # Rounding moves each entry by at most half of eps, and so each singular value by at most eps / 2 · ‖W‖.
    eps = float(np.finfo(weight.dtype if weight.dtype.kind == "f" else np.float64).eps)
    rounding = eps * float(np.linalg.norm(matrices))
    values, subspaces = _singular(matrices, min(vectors, rows, columns), rounding)
    rounding = max(rounding, float(np.max(values)) * max(rows, columns) * float(np.finfo(np.float64).eps))
    if subspaces is not None and rows > columns:
        subspaces = subspaces[::-1]
    values = np.sort(values, axis=None)[::-1]
    with np.errstate(all="ignore"):
        rounding = float(np.ldexp(rounding, exponent))
        return Spectrum(np.ldexp(values, exponent), rows, columns, groups, subspaces, rounding)


def _singular(
    matrices: NDArray[np.float64], vectors: int, rounding: float
) -> tuple[NDArray[np.float64], Subspaces | None]:
    """Return the singular values of each of several wide matrices, in any order, and its first singular vectors."""
    try:
        gram = matrices @ matrices.transpose(0, 2, 1)
        squares, left = np.linalg.eigh(gram) if vectors else (np.linalg.eigvalsh(gram), None)
        if (squares[:, 0] >= _GRAM_RESOLVES * squares[:, -1]).all():
            values = np.sqrt(squares)[:, ::-1]
            if left is None:
                return values, None
            left = left[:, :, : -vectors - 1 : -1]
            right = matrices.transpose(0, 2, 1) @ (left / values[:, None, :vectors])
            right = np.linalg.qr(right)[0]  # a wide spectrum leaves them less orthogonal than rounding
            return values, _settled(left, right, values, rounding)
    except np.linalg.LinAlgError:
        pass
    try:
        if not vectors:
            return np.asarray(np.linalg.svd(matrices, compute_uv=False), np.float64), None
        left, values, right = np.linalg.svd(matrices, full_matrices=False)
        return values, _settled(left[:, :, :vectors], right[:, :vectors].transpose(0, 2, 1), values, rounding)
    except np.linalg.LinAlgError:
        return np.full(matrices.shape[:2], math.nan), None


def _settled(
    left: NDArray[np.float64], right: NDArray[np.float64], values: NDArray[np.float64], rounding: float
) -> Subspaces:
    """Return copies of the vectors; NaN if their singular values are not apart from the others or from zero."""
    count = left.shape[2]
    below = values[:, count] if count < values.shape[1] else 0.0
    last = values[:, count - 1]
    apart = bool(((last - below > _APART * values[:, 0]) & (last > rounding)).all())
    filler = 1.0 if apart else math.nan
    return filler * left, filler * right


@shared
def forward_spectrum(forward: NDArray[Any], groups: int = 1, vectors: int = 0) -> Spectrum:
    """Spectrum of W."""
    return decompose(forward, groups, vectors)


@shared
def feedback_spectrum(feedback: NDArray[Any], groups: int = 1, direct: bool = False, vectors: int = 0) -> Spectrum:
    """Spectrum of B; feedback straight from the output has no groups, and no subspaces to compare with those of W."""
    return decompose(feedback, 1 if direct else groups, 0 if direct else vectors)
