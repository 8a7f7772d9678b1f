"""Sizes and second moments of a signal on a batch, in float64 and free of overflow, whatever the signal's scale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 2**20
"""Number of entries that are copied to float64 at a time."""


def _gram(signal: Array, units: int) -> tuple[NDArray[np.float64], int]:
    """Return the smaller Gram matrix, of features or of samples, over the number of samples and 4^exponent."""
    features = np.moveaxis(signal, units, -1)
    width = features.shape[-1]
    samples = features.size // width
    exponent = math.frexp(float(np.max(np.abs(signal))))[1]
    if samples < width:
        rows = np.ldexp(features.reshape(samples, width).astype(np.float64), -exponent)
        return rows @ rows.T / samples, exponent
    gram = np.zeros((width, width))
    step = max(1, BLOCK * len(signal) // signal.size)
    for start in range(0, len(signal), step):
        rows = np.ldexp(features[start : start + step].reshape(-1, width).astype(np.float64), -exponent)
        gram += rows.T @ rows
    return gram / samples, exponent


def _eigenvalues(signal: Array, units: int) -> tuple[NDArray[np.float64], int]:
    """Return the eigenvalues of E[s sᵀ] over 4^exponent, descending, and the exponent."""
    if not signal.size:
        return np.empty(0), 0
    if not np.isfinite(signal).all():
        return np.full(min(signal.shape[units], signal.size // signal.shape[units]), math.nan), 0
    moments, exponent = _gram(signal, units)
    return np.maximum(np.linalg.eigvalsh(moments)[::-1], 0.0), exponent


def second_moments(signal: Array, units: int = 1) -> NDArray[np.float64]:
    """Return the eigenvalues of E[s sᵀ] that can differ from zero, descending; NaN unless all entries are finite.

    Parameters
    ----------
    signal
        Its first axis counts the examples.
    units
        Axis of the features or channels; all others are samples.

    Examples
    --------
    >>> second_moments(np.array([[2.0, 0.0], [0.0, 4.0]]))
    array([8., 2.])
    """
    values, exponent = _eigenvalues(signal, units)
    with np.errstate(all="ignore"):
        return np.asarray(np.ldexp(values, 2 * exponent))


def principal_sizes(signal: Array, units: int = 1) -> NDArray[np.float64]:
    """Return the square roots of `second_moments`, with zero for what rounding leaves of a zero.

    They are the singular values of the matrix samples × units, over the square root of the number of samples.

    Examples
    --------
    >>> principal_sizes(np.array([[1e200, 1e200], [1e200, 1e200]])) / 1e200
    array([1.41421356, 0.        ])
    """
    values, exponent = _eigenvalues(signal, units)
    floor = np.finfo(np.float64).eps * len(values) * (values[0] if len(values) else 0.0)
    with np.errstate(all="ignore"):
        return np.asarray(np.ldexp(np.sqrt(np.where(values <= floor, 0.0, values)), exponent))


def root_mean_square(signal: Array) -> float:
    """Return the root mean square of all entries; NaN if there is none or one is not finite.

    Examples
    --------
    >>> root_mean_square(np.array([[3e200, -4e200]])) / 1e200
    3.5355339059327...
    """
    largest = float(np.max(np.abs(signal), initial=0.0))
    if not signal.size or not math.isfinite(largest):
        return math.nan
    exponent = math.frexp(largest)[1]
    squares, step = 0.0, max(1, BLOCK * len(signal) // signal.size)
    for start in range(0, len(signal), step):
        part = np.ldexp(signal[start : start + step].astype(np.float64), -exponent)
        squares += float(np.vdot(part, part))
    return math.ldexp(math.sqrt(squares / signal.size), exponent)
