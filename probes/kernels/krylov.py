"""The Krylov space of a symmetric operator: a small space in which it can be written down."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_LOST = 1e-5  # of the largest product, below which the rest of one is rounding in float32


def krylov(apply: Callable[[Vector], Vector], start: Vector, size: int) -> tuple[Vector, Vector]:
    """Return an orthonormal basis of the space of v, H v, H² v, …, and H between its elements.

    Parameters
    ----------
    apply
        Function that returns H v for v, in the shape of v.
    start
        The start vector; not zero.
    size
        Largest size of the basis; it is smaller if the space is.

    Returns
    -------
    basis : ndarray
        (k, *shape of v).
    projected : ndarray
        (k, k); not finite if products overflow.

    Examples
    --------
    >>> basis, projected = krylov(lambda v: np.array([2.0, 5.0, 5.0]) * v, np.ones(3), 3)
    >>> np.linalg.eigvalsh(projected).round(6)
    array([2., 5.])
    """
    vector = np.asarray(start, np.float64) / np.linalg.norm(start)
    basis, columns, largest = [vector.ravel()], [], 0.0
    while True:
        with np.errstate(all="ignore"):
            product = apply(basis[-1].reshape(start.shape)).ravel()
            columns.append(np.stack(basis) @ product)
            largest = max(largest, float(np.linalg.norm(product)))
            for _ in range(2):  # once more, for what rounding left over
                product = product - np.stack(basis).T @ (np.stack(basis) @ product)
            left = float(np.linalg.norm(product))
        if len(basis) == min(size, start.size) or not left > _LOST * largest:
            break
        basis.append(product / left)
    projected = np.zeros((len(basis), len(basis)))
    for index, column in enumerate(columns):
        projected[: len(column), index] = projected[index, : len(column)] = column
    return np.stack(basis).reshape(-1, *start.shape), projected
