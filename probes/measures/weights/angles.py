"""Angle between the feedback weights and the forward weights."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison, compare
from wtdiag.probes.kernels.nulls import angle_null
from wtdiag.probes.measures.weights.units import by_unit
from wtdiag.probes.registry import declare, probe, shared

declare(
    forward="weights W, with one row for each output unit; in a transposed convolution, for each input unit",
    feedback="weights B that carried the error, in W's shape unless they come straight from the output",
    groups="number of groups of a convolution",
    transposed="whether the layer is a transposed convolution",
    direct="whether B comes straight from the output",
)


@shared
def weight_comparison(
    forward: NDArray[Any], feedback: NDArray[Any], groups: int = 1, transposed: bool = False, direct: bool = False
) -> Comparison:
    """Comparison of W with B, with one row for each output unit.

    The entries of feedback that comes straight from the output do not correspond to entries of W.
    """
    if direct or forward.shape != feedback.shape:
        return compare(forward, feedback, comparable=False)
    return compare(by_unit(forward, groups, transposed), by_unit(feedback, groups, transposed))


@probe(
    units="degree",
    long_name="angle between forward and feedback weights",
    equation="∠(W, B) = arccos(⟨W, B⟩ / (‖W‖ ‖B‖))",
    reference="Lillicrap et al. 2014, arXiv:1411.0247",
    null=lambda weight_comparison: angle_null(weight_comparison),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
)
def weight_angle(weight_comparison: Comparison) -> float:
    """Angle between W and B as vectors of all their entries, in degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["weight_angle"](forward=np.array([[1.0, 0.0]]), feedback=np.array([[1.0, 1.0]])), 6)
    45.0
    """
    return weight_comparison.angle
