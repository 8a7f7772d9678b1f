"""Comparison of two arrays, as a whole and row by row, in one pass over both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.row_sums import RowSums, row_sums

Array = NDArray[Any]

_BLOCK = 16384  # entries; the float64 copies of a block of rows stay in the second-level cache
_SQUARES = 1e-200, 1e200  # sums of squares between these have lost nothing to underflow or overflow
_ROW_FLOOR = 1e-150  # below this norm, a row may have lost squares to underflow, even if the whole array has not
_NEARLY_ONE = 1 - 1e-6  # a larger cosine no longer resolves its angle to 1e-9 degrees


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two arrays entry by entry; NaN where a number has no meaning.

    Attributes
    ----------
    size : int
        Number of entries of the first array.
    first_norm, second_norm : float
        Frobenius norms; NaN if an entry is not finite.
    angle : float
        Angle between the arrays, from 0 to 180 degrees.
    pairs : int
        Number of entries that are nonzero in both arrays, so that their signs can be compared.
    sign_agreement : float
        Fraction of these entries whose signs are equal.
    weighted_sign_agreement, weighted_sign_spread : float
        The same with each entry weighted by its absolute value in the first array, and its standard deviation if the
        signs of the second array are random.
    row_angles : ndarray
        Angle of each row, that is, of each index of the first axis, in degrees; NaN for rows below the floor. Empty if
        the whole has no angle.
    """

    size: int
    first_norm: float
    second_norm: float
    angle: float = math.nan
    pairs: int = 0
    sign_agreement: float = math.nan
    weighted_sign_agreement: float = math.nan
    weighted_sign_spread: float = math.nan
    row_angles: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), compare=False)


def compare(first: Array, second: Array, comparable: bool = True) -> Comparison:
    """Compare two arrays in one pass, with sums in float64.

    With ``comparable=False``, or if the shapes differ, only the norms are computed. Angles and signs are also NaN
    if an array is zero, is not finite, or has a norm below the smallest normal number of its dtype, where rounding
    has destroyed its direction.

    Examples
    --------
    >>> both = compare(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]]))
    >>> round(both.angle, 6), both.row_angles.round(6), both.sign_agreement
    (60.0, array([45., nan]), 1.0)
    """
    if not comparable or first.shape != second.shape:
        return Comparison(first.size, compare(first, first).first_norm, compare(second, second).first_norm)
    single = np.can_cast(np.result_type(first, second), np.float32)
    a, b = (_rows(array, np.float32 if single else np.float64) for array in (first, second))
    a_scale = b_scale = 1.0
    rows, whole = row_sums(a, b)
    # Squares of float32 stay in float64's range.
    if not (single or all(_SQUARES[0] < square < _SQUARES[1] for square in whole[:2])):
        (a, a_scale), (b, b_scale) = _scaled(a), _scaled(b)
        rows, whole = row_sums(a, b)
    norms = _finite(a_scale * math.sqrt(whole.first_squares)), _finite(b_scale * math.sqrt(whole.second_squares))
    floors = _floor(first), _floor(second)
    if not (norms[0] >= floors[0] and norms[1] >= floors[1]):  # a NaN is not above the floor
        return Comparison(first.size, *norms)
    return Comparison(
        first.size,
        *norms,
        _angle_of_whole(a, b, whole),
        int(whole.pairs),
        *_signs(whole),
        _angles_of_rows(a, b, rows, floors[0] / a_scale, floors[1] / b_scale),
    )


def _rows(array: Array, dtype: type[np.floating[Any]]) -> Array:
    """Return the array as a matrix; an array of one axis becomes one row."""
    shape = (array.shape[0], math.prod(array.shape[1:])) if array.ndim > 1 else (1, array.size)
    return np.ascontiguousarray(array, dtype).reshape(shape)


def _signs(sums: RowSums) -> tuple[float, float, float]:
    """Return the agreement of signs, the weighted agreement and its spread."""
    if not sums.pairs:
        return math.nan, math.nan, math.nan
    weighted = (sums.weights + sums.signed_weights) / (2 * sums.weights)
    spread = math.sqrt(sums.pair_squares) / (2 * sums.weights)
    return (sums.pairs + sums.signs) / (2 * sums.pairs), min(max(weighted, 0.0), 1.0), spread


def _angle_of_whole(a: Array, b: Array, sums: RowSums) -> float:
    norms = math.sqrt(sums.first_squares), math.sqrt(sums.second_squares)
    cosine = sums.products / norms[0] / norms[1]
    if abs(cosine) < _NEARLY_ONE:
        return math.degrees(math.acos(cosine))
    apart, together = _differences(a, b, np.arange(len(a)), *np.repeat([norms], len(a), axis=0).T).sum(axis=1)
    return math.degrees(2 * math.atan2(math.sqrt(apart), math.sqrt(together)))


def _angles_of_rows(a: Array, b: Array, sums: RowSums, a_floor: float, b_floor: float) -> NDArray[np.float64]:
    a_norms, b_norms = np.sqrt(sums.first_squares), np.sqrt(sums.second_squares)
    above = (a_norms >= max(a_floor, _ROW_FLOOR)) & (b_norms >= max(b_floor, _ROW_FLOOR))
    with np.errstate(all="ignore"):
        cosines = np.where(above, sums.products / a_norms / b_norms, math.nan)
        angles = np.arccos(cosines)
    near = np.flatnonzero(np.abs(cosines) >= _NEARLY_ONE)
    if near.size:
        apart, together = _differences(a, b, near, a_norms[near], b_norms[near])
        angles[near] = 2 * np.arctan2(np.sqrt(apart), np.sqrt(together))
    return np.degrees(angles)


def _differences(
    a: Array, b: Array, rows: NDArray[np.intp], a_norms: NDArray[np.float64], b_norms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ‖x − y‖² and ‖x + y‖² of the given rows, normalised: exact near 0 and π, where arccos is not."""
    squares = np.empty((2, len(rows)))
    step = max(1, _BLOCK // a.shape[1])
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        x, y = a[rows[block]] / a_norms[block, None], b[rows[block]] / b_norms[block, None]
        for of, part in zip(squares, (x - y, x + y), strict=True):
            of[block] = np.einsum("ij,ij->i", part, part)
    return squares


def _scaled(array: Array) -> tuple[Array, float]:
    """Return the array divided by a power of two that brings its largest entry between 1 and 2, and that power."""
    largest = float(np.max(np.abs(array), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return array, 1.0
    exponent = math.frexp(largest)[1] - 1
    return np.ldexp(array, -exponent), math.ldexp(1.0, exponent)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _floor(array: Array) -> float:
    return float(np.finfo(array.dtype if array.dtype.kind == "f" else np.float64).tiny)
