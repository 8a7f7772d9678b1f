"""Everything about how two arrays compare, from one pass over both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BLOCK = 16384  # entries; the float64 copies of a block stay in the second-level cache
_SQUARES = 1e-200, 1e200  # sums of squares between these have lost nothing to under- or overflow
_NEARLY_ONE = 1 - 1e-6  # a larger cosine no longer resolves its angle to 1e-9 degrees


@dataclass(frozen=True)
class Comparison:
    """How two arrays compare, entry with entry; NaN where that means nothing.

    Attributes
    ----------
    size : int
        Number of entries of the first.
    first_norm, second_norm : float
        Frobenius norms; NaN if an entry is not finite.
    angle : float
        Degrees, 0 to 180.
    sign_agreement : float
        Fraction of equal signs among the pairs in which neither entry is zero.
    """

    size: int
    first_norm: float
    second_norm: float
    angle: float
    sign_agreement: float


def compare(first: Array, second: Array, comparable: bool = True) -> Comparison:
    """Compare two arrays in one pass, with sums in float64.

    With ``comparable=False``, or for shapes that differ, only the norms are numbers. Angle and signs are NaN
    too where an array is zero, not finite, or below the smallest normal number of its dtype, for there
    rounding has eaten the direction.

    Examples
    --------
    >>> compare(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    Comparison(size=2, first_norm=1.0, second_norm=1.41..., angle=45.0..., sign_agreement=1.0)
    """
    if not comparable or first.shape != second.shape:
        norms = compare(first, first).first_norm, compare(second, second).first_norm
        return Comparison(first.size, *norms, math.nan, math.nan)
    a, b = first.reshape(-1), second.reshape(-1)
    a_scale = b_scale = 1.0
    aa, bb, ab, same, opposite = _sums(a, b)
    if not all(_SQUARES[0] < square < _SQUARES[1] for square in (aa, bb)):
        (a, a_scale), (b, b_scale) = _scaled(a), _scaled(b)
        aa, bb, ab, same, opposite = _sums(a, b)
    norms = _finite(a_scale * math.sqrt(aa)), _finite(b_scale * math.sqrt(bb))
    if not (norms[0] >= _floor(first) and norms[1] >= _floor(second)):  # a NaN is not above the floor
        return Comparison(a.size, *norms, math.nan, math.nan)
    cosine = ab / math.sqrt(aa) / math.sqrt(bb)
    angle = math.acos(cosine) if abs(cosine) < _NEARLY_ONE else _angle_of_residual(a, b, ab / aa, math.sqrt(aa))
    agreement = same / (same + opposite) if same + opposite else math.nan
    return Comparison(a.size, *norms, math.degrees(angle), agreement)


def _sums(a: Array, b: Array) -> tuple[float, float, float, int, int]:
    """Sum a², b² and ab, and count the positive and the negative products."""
    x, y, products = np.empty((3, _BLOCK))
    positive = np.empty(_BLOCK, np.bool_)
    aa = bb = ab = 0.0
    same = opposite = 0
    with np.errstate(all="ignore"):  # what overflows or is NaN is NaN in the result
        for start in range(0, a.size, _BLOCK):
            n = min(_BLOCK, a.size - start)
            if n < _BLOCK:
                x, y, products, positive = x[:n], y[:n], products[:n], positive[:n]
            x[...] = a[start : start + n]
            y[...] = b[start : start + n]
            aa += float(np.dot(x, x))
            bb += float(np.dot(y, y))
            ab += float(np.dot(x, y))
            np.multiply(x, y, out=products)
            same += int(np.count_nonzero(np.greater(products, 0, out=positive)))
            opposite += int(np.count_nonzero(np.less(products, 0, out=positive)))
    return aa, bb, ab, same, opposite


def _angle_of_residual(a: Array, b: Array, slope: float, a_norm: float) -> float:
    """Angle from the part of b that is orthogonal to a: exact near 0 and π, where arccos is not."""
    residual = 0.0
    for start in range(0, a.size, _BLOCK):
        part = b[start : start + _BLOCK].astype(np.float64)
        part -= slope * a[start : start + _BLOCK].astype(np.float64)
        residual += float(np.dot(part, part))
    return math.atan2(math.sqrt(residual), slope * a_norm)


def _scaled(array: Array) -> tuple[Array, float]:
    """Divide by the power of two that brings the largest entry to between 1 and 2."""
    largest = float(np.max(np.abs(array), initial=0.0))
    if largest == 0 or not math.isfinite(largest):
        return array, 1.0
    exponent = math.frexp(largest)[1] - 1
    return np.ldexp(array.astype(np.float64), -exponent), math.ldexp(1.0, exponent)


def rescale(array: Array) -> tuple[Array, float]:
    """Bring the entries to a size whose squares stay in range; and give the floor below which norms mean nothing.

    Examples
    --------
    >>> rescale(np.array([3e300]))[0] ** 2 < 4
    array([ True])
    """
    largest = float(np.max(np.abs(array), initial=0.0))
    scaled, scale = (array, 1.0) if 1e-20 < largest < 1e100 else _scaled(array)
    return scaled, max(_floor(array) / scale, 1e-150)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _floor(array: Array) -> float:
    return float(np.finfo(array.dtype if array.dtype.kind == "f" else np.float64).tiny)
