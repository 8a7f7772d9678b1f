"""Norms of the weights."""

from __future__ import annotations

import math

from wtdiag.probes.kernels.comparison import Comparison
from wtdiag.probes.kernels.nulls import norm_ratio_null
from wtdiag.probes.registry import probe

_REFERENCE = "Golub and Van Loan 2013, Matrix Computations, section 2.3"


@probe(
    units="1",
    long_name="Frobenius norm of the forward weights",
    equation="‖W‖ = √Σ W²",
    reference=_REFERENCE,
    subject="forward",
    scale="log",
    homogeneity=1,
)
def forward_norm(weight_comparison: Comparison) -> float:
    """Square root of the sum of the squared entries of W.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_norm"](forward=np.array([[3.0, 4.0]]), feedback=np.array([[1.0, 0.0]]))
    5.0
    """
    return weight_comparison.first_norm


@probe(
    units="1",
    long_name="Frobenius norm of the feedback weights",
    equation="‖B‖ = √Σ B²",
    reference=_REFERENCE,
    subject="feedback",
    scale="log",
    homogeneity=1,
)
def feedback_norm(weight_comparison: Comparison) -> float:
    """Square root of the sum of the squared entries of B.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["feedback_norm"](forward=np.array([[1.0, 0.0]]), feedback=np.array([[3.0, 4.0]]))
    5.0
    """
    return weight_comparison.second_norm


@probe(
    units="1",
    long_name="norm of the feedback weights over that of the forward weights",
    equation="‖B‖ / ‖W‖",
    reference="Kunin et al. 2020, arXiv:2003.01513",
    null=lambda weight_comparison: norm_ratio_null(weight_comparison),
    subject="feedback",
    neutral=1,
    scale="log",
)
def norm_ratio(forward_norm: float, feedback_norm: float) -> float:
    """Frobenius norm of B over that of W. By chance: for entries of equal variance.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["norm_ratio"](forward=np.array([[3.0, 4.0]]), feedback=np.array([[1.0, 0.0]]))
    0.2
    """
    return feedback_norm / forward_norm if forward_norm else math.nan
