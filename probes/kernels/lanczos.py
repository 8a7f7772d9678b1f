"""Measures of a symmetric operator's spectrum, from its products with vectors alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

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
    vector = np.asarray(start, np.float64) / np.linalg.norm(start)
    previous = np.zeros_like(vector)
    diagonal: list[float] = []
    beside: list[float] = []
    estimate, left, settled = float("nan"), 0.0, 0
    while len(diagonal) < min(most, start.size):
        with np.errstate(all="ignore"):
            product = apply(vector) - left * previous
            diagonal.append(float(np.vdot(vector, product)))
            product -= diagonal[-1] * vector
            left = float(np.linalg.norm(product))
        if not np.isfinite([left, diagonal[-1]]).all():
            return float("inf")
        values, vectors = eigh_tridiagonal(diagonal, beside)
        before, estimate = estimate, float(measure(values, vectors[0] ** 2))
        settled = settled + 1 if abs(estimate - before) <= tolerance * abs(estimate) else 0
        if settled == 2 or left <= _ROUNDING * np.max(np.abs(values)):
            break
        beside.append(left)
        previous, vector = vector, product / left
    return estimate
