"""Similarity of two representations of the same examples, whatever rotates or scales their units."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError

Array = NDArray[Any]


def linear_cka(first: Array, second: Array) -> float:
    r"""Return the debiased linear CKA: 1 up to rotation and scale, 0 in expectation for independent representations.

    With the Gram matrices K and L of the examples, without their diagonals, it is
    HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) of Song's unbiased estimator
    HSIC(K, L) n(n − 3) = tr(KL) + ΣK ΣL / ((n − 1)(n − 2)) − 2 1ᵀKL1 / (n − 2). The plain CKA is near 1 for any
    two representations with many more units than examples; this one is not, and may be below 0 by chance.

    Parameters
    ----------
    first, second
        Examples × units, with the same examples.

    Returns
    -------
    float
        At most 1; NaN for a representation that does not vary or is not finite.

    Raises
    ------
    InputError
        If the numbers of examples differ, or are below 4.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414; Song et al. 2007, arXiv:0704.2668, for the estimator; Nguyen, Raghu and
    Kornblith 2021, arXiv:2010.15327.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(linear_cka(x, 3 * x[:, ::-1]), 12)
    1.0
    """
    x, y = _paired(first, second)
    if len(x) < 4:
        raise InputError(f"examples: expected at least 4, got {len(x)}")
    if not (_varies(x) and _varies(y)):
        return math.nan
    k, gram = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(gram, 0.0)
    own = _hsic(k, k) * _hsic(gram, gram)
    return min(_hsic(k, gram) / math.sqrt(own), 1.0) if own > 0 else math.nan


def _hsic(k: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    n = len(k)
    sums, others = k.sum(axis=1), other.sum(axis=1)
    total = float(np.vdot(k, other)) + sums.sum() * others.sum() / ((n - 1) * (n - 2))
    return float(total - 2 * (sums @ others) / (n - 2)) / (n * (n - 3))


def procrustes_distance(first: Array, second: Array) -> float:
    r"""Return the Procrustes distance: 0 up to rotation, shift and scale, at most √2.

    It is :math:`\min_R \|X - Y R\| = \sqrt{2 - 2\|X^T Y\|_*}` over orthogonal R, for X and Y centred over the examples
    and scaled to Frobenius norm 1; the narrower one is filled up with zeros. More units than examples make it small for
    any two representations, so it is to be read beside its value for shuffled examples.

    Parameters
    ----------
    first, second
        Examples × units, with the same examples.

    Returns
    -------
    float
        From 0 to √2; NaN for a representation that does not vary or is not finite.

    Raises
    ------
    InputError
        If the numbers of examples differ.

    References
    ----------
    Williams et al. 2021, arXiv:2110.14739; Ding, Denain and Steinhardt 2021, arXiv:2108.01661.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(procrustes_distance(x, 3 * x[:, ::-1] + 1), 6)
    0.0
    """
    x, y = _paired(first, second)
    if not (_varies(x) and _varies(y)):
        return math.nan
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    # The nuclear norm of XᵀY is that of the small product of the triangular factors of Xᵀ and Yᵀ.
    if x.shape[1] > len(x):
        x = np.asarray(np.linalg.qr(x.T, mode="r")).T
    if y.shape[1] > len(y):
        y = np.asarray(np.linalg.qr(y.T, mode="r")).T
    nuclear = float(np.linalg.svd(x.T @ y, compute_uv=False).sum())
    return math.sqrt(max(2.0 - 2.0 * nuclear, 0.0))


def _paired(first: Array, second: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both as centred matrices, scaled to a largest entry near 1."""
    if len(first) != len(second):
        raise InputError(f"examples: the representations have {len(first)} and {len(second)}; expected the same ones")
    matrices = []
    for each in (first, second):
        rows = np.asarray(each, np.float64).reshape(len(each), -1)
        largest = float(np.max(np.abs(rows), initial=0.0))
        with np.errstate(all="ignore"):
            rows = rows / largest if largest else rows
            matrices.append(rows - rows.mean(axis=0))
    return matrices[0], matrices[1]


def _varies(rows: NDArray[np.float64]) -> bool:
    size = float(np.max(np.abs(rows), initial=0.0))
    return math.isfinite(size) and size > 1e-12
