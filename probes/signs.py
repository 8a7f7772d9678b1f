"""Whether feedback weights have the signs of the forward weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.comparison import Comparison
from probes.nulls import sign_agreement_null
from probes.registry import probe, shared

_BLOCK = 16384  # entries; the float64 copies of a block stay in the second-level cache


@dataclass(frozen=True)
class WeightedSigns:
    """Share of Σ|W| with B's sign, and what it scatters by where B's signs are random."""

    agreement: float
    spread: float


@shared
def weighted_signs(weight_comparison: Comparison, forward: NDArray[Any], feedback: NDArray[Any]) -> WeightedSigns:
    """Weigh each entry by |W|, in one pass with sums in float64; NaN where signs do not compare."""
    if math.isnan(weight_comparison.sign_agreement):
        return WeightedSigns(math.nan, math.nan)
    w, b = forward.reshape(-1), feedback.reshape(-1)
    scale = float(np.max(np.abs(w)))
    signed = total = squares = 0.0
    for start in range(0, w.size, _BLOCK):
        x = w[start : start + _BLOCK].astype(np.float64)
        x /= scale
        sign = np.sign(b[start : start + _BLOCK], dtype=x.dtype)
        signed += float(np.dot(x, sign))
        x *= sign  # drops the entries for which B has no sign
        squares += float(np.dot(x, x))
        total += float(np.abs(x, out=x).sum())
    return WeightedSigns(min((1 + signed / total) / 2, 1.0), math.sqrt(squares) / total / 2)


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


@probe(
    units="1",
    long_name="share of entries with equal signs, weighted by the size of the forward weights",
    equation="Σ |W| (sign W = sign B) / Σ |W|, over entries where neither is 0",
    reference="Liao et al. 2015, arXiv:1510.05067",
    null=lambda weighted_signs: (0.5, weighted_signs.spread),
)
def weighted_sign_agreement(weighted_signs: WeightedSigns) -> float:
    """Share of W's absolute weight that has B's sign; by chance, for W as it is and random signs in B.

    Examples
    --------
    >>> from probes import PROBES
    >>> forward, feedback = np.array([[1.0, -3.0, 0.0]]), np.array([[3.0, 4.0, 5.0]])
    >>> round(PROBES["weighted_sign_agreement"](forward=forward, feedback=feedback), 12)
    0.25
    """
    return weighted_signs.agreement
