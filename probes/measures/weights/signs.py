"""Agreement between the signs of the feedback weights and those of the forward weights."""

from __future__ import annotations

from wtdiag.probes.kernels.comparison import Comparison
from wtdiag.probes.kernels.nulls import sign_agreement_null
from wtdiag.probes.registry import probe


@probe(
    units="1",
    long_name="share of entries with equal signs",
    equation="mean(sign W = sign B), over entries where neither is 0",
    reference="Liao et al. 2015, arXiv:1510.05067",
    null=lambda weight_comparison: sign_agreement_null(weight_comparison),
    subject="feedback",
    bounds=(0, 1),
    neutral=0.5,
    entrywise=True,
)
def sign_agreement(weight_comparison: Comparison) -> float:
    """Fraction of the entries in which W and B have the same sign, among those that are zero in neither.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> PROBES["sign_agreement"](forward=np.array([[1.0, -2.0, 0.0]]), feedback=np.array([[3.0, 4.0, 5.0]]))
    0.5
    """
    return weight_comparison.sign_agreement


@probe(
    units="1",
    long_name="share of entries with equal signs, weighted by the size of the forward weights",
    equation="Σ |W| (sign W = sign B) / Σ |W|, over entries where neither is 0",
    reference="Liao et al. 2015, arXiv:1510.05067",
    null=lambda weight_comparison: (0.5, weight_comparison.weighted_sign_spread),
    subject="feedback",
    bounds=(0, 1),
    neutral=0.5,
    entrywise=True,
)
def weighted_sign_agreement(weight_comparison: Comparison) -> float:
    """Share of the sum of |W| over entries that have the sign of B. By chance: for random signs in B.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> forward, feedback = np.array([[1.0, -3.0, 0.0]]), np.array([[3.0, 4.0, 5.0]])
    >>> round(PROBES["weighted_sign_agreement"](forward=forward, feedback=feedback), 12)
    0.25
    """
    return weight_comparison.weighted_sign_agreement
