"""Whether feedback weights have the signs of the forward weights."""

from __future__ import annotations

from probes.comparison import Comparison
from probes.nulls import sign_agreement_null
from probes.registry import probe


@probe(
    units="1",
    long_name="share of entries with equal signs",
    equation="mean(sign W = sign B), over entries where neither is 0",
    reference="Liao et al. 2015, arXiv:1510.05067",
    null=lambda weight_comparison: sign_agreement_null(weight_comparison),
)
def sign_agreement(weight_comparison: Comparison) -> float:
    """Fraction of entries in which W and B have the same sign; an entry that is zero in either has none.

    Examples
    --------
    >>> import numpy as np
    >>> from probes import PROBES
    >>> PROBES["sign_agreement"](forward=np.array([[1.0, -2.0, 0.0]]), feedback=np.array([[3.0, 4.0, 5.0]]))
    0.5
    """
    return weight_comparison.sign_agreement
