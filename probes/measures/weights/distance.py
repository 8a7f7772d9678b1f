"""Gain of the feedback weights along the forward weights, and the distance between the two."""

from __future__ import annotations

import math

from wtdiag.probes.kernels.comparison import Comparison
from wtdiag.probes.kernels.nulls import relative_distance_null
from wtdiag.probes.registry import probe


def _gain_null(weight_comparison: Comparison, norm_ratio: float) -> tuple[float, float]:
    """Return 0 and ratio / √size: the cosine of independent Gaussian arrays has variance 1 / size."""
    return 0.0, norm_ratio / math.sqrt(weight_comparison.size) if weight_comparison.size else math.nan


@probe(
    units="1",
    long_name="gain of the feedback along the forward weights",
    equation="⟨B, W⟩ / ⟨W, W⟩",
    reference="the regression coefficient of B on W; Golub and Van Loan 2013, Matrix Computations, section 5.3",
    null=_gain_null,
    subject="feedback",
    bounds=(-math.inf, math.inf),
    neutral=1,
    scale="log",
)
def weight_gain(weight_comparison: Comparison, norm_ratio: float) -> float:
    """Multiple of W that is closest to B: 1 if B is W plus something orthogonal to it, and negative beyond 90°.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["weight_gain"](forward=np.array([[2.0, 0.0]]), feedback=np.array([[1.0, 5.0]])), 12)
    0.5
    """
    return norm_ratio * math.cos(math.radians(weight_comparison.angle))


@probe(
    units="1",
    long_name="distance between feedback and forward weights, relative to the norm of the forward weights",
    equation="‖B − W‖ / ‖W‖",
    reference="Golub and Van Loan 2013, Matrix Computations, section 2.3",
    null=lambda weight_comparison, norm_ratio: relative_distance_null(weight_comparison, norm_ratio),
    subject="feedback",
)
def relative_distance(weight_comparison: Comparison, norm_ratio: float) -> float:
    """Frobenius norm of B − W relative to that of W. By chance: for random directions and these norms of W and B.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["relative_distance"](forward=np.array([[2.0, 0.0]]), feedback=np.array([[2.0, 1.0]])), 12)
    0.5
    """
    half = math.sin(math.radians(weight_comparison.angle) / 2)
    return math.hypot(1 - norm_ratio, 2 * math.sqrt(norm_ratio) * half)  # the law of cosines without cancellation
