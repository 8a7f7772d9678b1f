"""How many entries of B hardly count."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes import probe


@probe(
    units="1",
    long_name="share of small entries of the feedback weights",
    equation="share of entries with |B_ij| < max |B| / 100",
    reference="an example of wtdiag's documentation",
    subject="feedback",
    bounds=(0.0, 1.0),
    entrywise=True,
)
def small_entries(feedback: NDArray[np.floating]) -> float:
    """Share of the entries of B that are below a hundredth of the largest; NaN if B is empty, zero or not finite."""
    sizes = np.abs(feedback)
    largest = float(sizes.max(initial=0.0))
    if not 0.0 < largest < math.inf:
        return math.nan
    return float(np.mean(sizes < largest / 100))
