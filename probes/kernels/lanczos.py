"""Measures of a symmetric operator's spectrum, from its products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from wtdiag.probes.kernels.krylov import krylov

Vector = NDArray[np.float64]

_ROUNDING = 1e-6  # of the largest value: a smaller remainder of a vector is rounding, even in float32


def lanczos(
    apply: Callable[[Vector], Vector],
    start: NDArray[Any],
    measure: Callable[[Vector, Vector], float],
    tolerance: float = 1e-4,
    most: int = 64,
) -> float:
    """Return a measure of the spectrum of a symmetric H, as soon as more products with H no longer change it.

    k products give k Ritz values θ and the weights τ of the start vector v in them, with vᵀ f(H) v ≈ ‖v‖² Σ τ f(θ)
    for every f, exact for polynomials up to degree 2k − 1; the largest θ estimates the largest eigenvalue from below.
    Three vectors are held at a time. Rounding makes copies of earlier Ritz values, which share their weight.

    Parameters
    ----------
    apply
        Function that returns H v for v, in the shape of v.
    start
        The start vector; not zero.
    measure
        Function of the Ritz values, ascending, and of their weights, which sum to one.
    tolerance
        The iteration ends when the relative change of the measure is at most this twice in a row.
    most
        Largest number of products.

    Returns
    -------
    float
        The measure; infinite if products overflow.

    References
    ----------
    Golub and Meurant 2010, Matrices, Moments and Quadrature, chapters 4 and 6.

    Examples
    --------
    >>> lanczos(lambda v: np.array([1.0, 2.0, 5.0]) * v, np.ones(3), lambda values, weights: values[-1])
    5.0...
    """
    estimate, settled = float("nan"), 0
    for values, vectors, left in _ritz(apply, start, most):
        if np.isinf(values[-1]):
            return float("inf")
        before, estimate = estimate, float(measure(values, vectors[0] ** 2))
        settled = settled + 1 if abs(estimate - before) <= tolerance * abs(estimate) else 0
        if settled == 2 or left <= _ROUNDING * np.max(np.abs(values)):
            break
    return estimate


def largest(apply: Callable[[Vector], Vector], start: NDArray[Any], tolerance: float = 1e-3, most: int = 128) -> float:
    """Return the largest eigenvalue of a symmetric H ≥ 0, from below.

    Where eigenvalues are dense, as those of convolutions on large maps are, the estimate stands still for many products
    long before it is right. So the iteration ends by the residual of the Ritz vector u, ‖H u − θ u‖: an eigenvalue lies
    no further from θ than that, and its distance is of second order in the residual. Of several that close to the
    largest, it may be any.

    Parameters
    ----------
    apply, start
        The same as for `lanczos`.
    tolerance
        Largest residual, relative to θ.
    most
        Largest number of products.

    Returns
    -------
    float
        The eigenvalue; infinite if products overflow.

    References
    ----------
    Parlett 1998, The Symmetric Eigenvalue Problem, theorems 4.5.1 and 11.7.1.

    Examples
    --------
    >>> largest(lambda v: np.array([1.0, 2.0, 5.0]) * v, np.ones(3))
    5.0...
    """
    value = float("nan")
    for values, vectors, left in _ritz(apply, start, most):
        value = float(values[-1])
        if left * abs(vectors[-1, -1]) <= tolerance * value or left <= _ROUNDING * np.max(np.abs(values)):
            break
    return value


def modes(apply: Callable[[Vector], Vector], start: NDArray[Any], count: int) -> tuple[Vector, Vector, Vector]:
    """Return Ritz values, ascending, and vectors of a symmetric H, and the weights of the start vector in them.

    They replace the eigenvalues and eigenvectors in f(H) v ≈ Σ w f(θ) u, exactly for polynomials of lower degree than
    their number.

    Parameters
    ----------
    apply, start
        The same as for `lanczos`.
    count
        Number of products, and of vectors in the shape of v that are held.

    Returns
    -------
    values, weights, vectors : ndarray
        θ, w, and u as the first axis of an array; values are infinite if products overflow.

    Examples
    --------
    >>> values, weights, vectors = modes(lambda v: np.array([1.0, 2.0]) * v, np.array([3.0, 4.0]), 5)
    >>> values.round(6), np.abs(weights).round(6), np.abs(vectors).round(6).tolist()
    (array([1., 2.]), array([3., 4.]), [[1.0, 0.0], [0.0, 1.0]])
    """
    size = float(np.linalg.norm(start))
    basis, projected = krylov(apply, start, count)
    if not np.isfinite(projected).all():
        return np.full(1, np.inf), np.full(1, size), basis[:1]
    values, vectors = np.linalg.eigh(projected)
    return values, size * vectors[0], np.tensordot(vectors.T, basis, axes=1)


def _ritz(
    apply: Callable[[Vector], Vector], start: NDArray[Any], most: int
) -> Iterator[tuple[Vector, NDArray[np.float64], float]]:
    """Yield after each product the Ritz values, their vectors in the Krylov basis, and the norm of the remainder.

    It ends with infinite values if products overflow.
    """
    vector = np.asarray(start, np.float64) / np.linalg.norm(start)
    previous = np.zeros_like(vector)
    diagonal: list[float] = []
    beside: list[float] = []
    left = 0.0
    while len(diagonal) < min(most, start.size):
        with np.errstate(all="ignore"):
            product = apply(vector) - left * previous
            diagonal.append(float(np.vdot(vector, product)))
            product -= diagonal[-1] * vector
            left = float(np.linalg.norm(product))
        if not np.isfinite([left, diagonal[-1]]).all():
            yield np.array([np.inf]), np.ones((1, 1)), 0.0
            return
        yield *eigh_tridiagonal(diagonal, beside), left
        beside.append(left)
        previous, vector = vector, product / left
