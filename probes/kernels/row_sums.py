"""Sums over each row of two matrices, in one pass over both: all that their comparison needs.

They are compiled, because numpy would read the data once for every sum. The compiled code is kept beside this file or
in the user's cache. If neither can be written, it is compiled at every start.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Sums may be taken in any order, so that several run in parallel. NaN and infinity keep their meaning.
_REORDER = {"reassoc", "contract"}
_BLOCK = 2048  # entries; such a block of both matrices stays in the first-level cache


class RowSums(NamedTuple):
    """Sums over entries a and b in float64; a *pair* is an entry that is 0 in neither.

    Attributes
    ----------
    first_squares, second_squares, products : ndarray or float
        Σ a², Σ b² and Σ ab.
    pairs, signs : ndarray or float
        Number of pairs, and Σ sign(ab) over them.
    weights, signed_weights, pair_squares : ndarray or float
        Σ |a|, Σ |a| sign(ab) and Σ a² over the pairs.
    """

    first_squares: Any
    second_squares: Any
    products: Any
    pairs: Any
    signs: Any
    weights: Any
    signed_weights: Any
    pair_squares: Any


def row_sums(first: NDArray[Any], second: NDArray[Any]) -> tuple[RowSums, RowSums]:
    """Return the sums over each row, and those over all rows, of two matrices of equal shape.

    Both must be C-contiguous, and both float32 or both float64.

    Examples
    --------
    >>> row_sums(np.array([[1.0, -2.0, 3.0]]), np.array([[2.0, 5.0, 0.0]]))[1]
    RowSums(first_squares=14.0, second_squares=29.0, products=-8.0,
            pairs=2.0, signs=0.0, weights=3.0, signed_weights=-1.0, pair_squares=5.0)
    """
    sums = _compiled()(first, second)
    with np.errstate(all="ignore"):  # overflow and NaN show in the result
        return RowSums(*sums), RowSums(*sums.sum(axis=1).tolist())


@cache
def _compiled() -> Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]:
    import numba  # loaded only when needed, because it takes a moment

    # A writable matrix is accepted where a read-only one is expected, so two versions suffice.
    matrices = (numba.types.Array(entry, 2, "C", readonly=True) for entry in (numba.float32, numba.float64))
    signatures = [(matrix, matrix) for matrix in matrices]
    try:
        compiled = numba.njit(signatures, nogil=True, fastmath=_REORDER, cache=True)(_row_sums)
    except RuntimeError:  # there is no folder to keep it in
        compiled = numba.njit(signatures, nogil=True, fastmath=_REORDER)(_row_sums)
    return compiled


def _row_sums(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    sums = np.zeros((8, first.shape[0]))
    for row in range(first.shape[0]):
        for start in range(0, first.shape[1], _BLOCK):
            a_block, b_block = first[row, start : start + _BLOCK], second[row, start : start + _BLOCK]
            # The first loop does little and waits only for memory; the others find the block in the cache.
            any_zero = False
            for i in range(len(a_block)):
                any_zero |= (a_block[i] == 0) | (b_block[i] == 0)
            aa = bb = ab = signs = weights = signed = 0.0
            for i in range(len(a_block)):
                a, b = np.float64(a_block[i]), np.float64(b_block[i])
                product = a * b
                aa += a * a
                bb += b * b
                ab += product
                signs += math.copysign(1.0, product)
                weights += abs(a)
                signed += math.copysign(a, product)
            pairs, squares = float(len(a_block)), aa
            if any_zero:
                pairs = signs = weights = signed = squares = 0.0
                for i in range(len(a_block)):
                    a, b = np.float64(a_block[i]), np.float64(b_block[i])
                    sign = (np.float64(a > 0) - np.float64(a < 0)) * (np.float64(b > 0) - np.float64(b < 0))
                    weight = abs(sign * a)
                    pairs += abs(sign)
                    signs += sign
                    weights += weight
                    signed += sign * weight
                    squares += weight * weight
            # One sum at a time, because numba takes ten times as long to compile a tuple.
            sums[0, row] += aa
            sums[1, row] += bb
            sums[2, row] += ab
            sums[3, row] += pairs
            sums[4, row] += signs
            sums[5, row] += weights
            sums[6, row] += signed
            sums[7, row] += squares
    return sums
