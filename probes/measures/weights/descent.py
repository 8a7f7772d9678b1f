"""A test whether the errors that the feedback carries lead downhill."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison
from wtdiag.probes.kernels.nulls import random_rightmost
from wtdiag.probes.registry import probe


def _blocks(weight: NDArray[Any], groups: int) -> tuple[NDArray[np.float64], float]:
    """Return the weight as (block, row, column), divided by a power of two, and that power; NaN if not finite."""
    largest = float(np.max(np.abs(weight)))
    if not math.isfinite(largest):
        return np.empty((0, 0, 0)), math.nan
    exponent = math.frexp(largest)[1]
    blocks = weight.astype(np.float64).reshape(groups, weight.shape[0] // groups, -1)
    return np.ldexp(blocks, 1 - exponent), math.ldexp(1.0, exponent - 1)


def _null(
    forward: NDArray[Any], weight_comparison: Comparison, groups: int = 1, direct: bool = False
) -> tuple[float, float]:
    norms = weight_comparison.first_norm * weight_comparison.second_norm
    if direct or not forward.size or not math.isfinite(norms):
        return math.nan, math.nan
    rows, columns = sorted((forward.shape[0] // groups, math.prod(forward.shape[1:])))
    mean, sd = random_rightmost(rows, columns, groups)
    return -norms * mean, norms * sd


@probe(
    units="1",
    long_name="smallest real part of the eigenvalues of BᵀW",
    equation="min Re λ(BᵀW), or of WBᵀ where W has fewer rows than columns; convolutions unfolded, per group",
    reference="Lillicrap et al. 2014, arXiv:1411.0247",
    null=_null,
    slow=True,
    subject="feedback",
    bounds=(-math.inf, math.inf),
    homogeneity=2,
)
def descent_eigenvalue(forward: NDArray[Any], feedback: NDArray[Any], groups: int = 1, direct: bool = False) -> float:
    """Smallest real part of the eigenvalues that BᵀW and WBᵀ share, in squared weights.

    The feedback leads every error e downhill if eᵀWBᵀe > 0 for all e. A positive value is necessary for this, and it is
    sufficient if WBᵀ is symmetric. The smaller of the two products is used, which lacks the zeros that the larger one
    has by its shape. The value is NaN if W and B cannot be compared or are not finite, and zero if it is zero to
    rounding.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["descent_eigenvalue"](forward=np.diag([3.0, 2.0]), feedback=np.diag([1.0, -1.0]))
    -2.0
    """
    if direct or forward.shape != feedback.shape or not forward.size:
        return math.nan
    rows = forward.shape[0] // groups
    (w, w_scale), (b, b_scale) = (_blocks(weight, groups) for weight in (forward, feedback))
    if not (math.isfinite(w_scale) and math.isfinite(b_scale)):
        return math.nan
    products = w @ b.transpose(0, 2, 1) if rows <= w.shape[2] else b.transpose(0, 2, 1) @ w
    try:
        least = float(np.linalg.eigvals(products).real.min())
    except np.linalg.LinAlgError:
        return math.nan
    if abs(least) <= products.shape[1] * np.finfo(np.float64).eps * float(np.linalg.norm(products, axis=(1, 2)).max()):
        return 0.0
    value = least * w_scale * b_scale
    return value if math.isfinite(value) else math.nan
