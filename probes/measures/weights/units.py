"""Angles between the feedback weights and the forward weights of each output unit.

The weights of an output unit are its row in a dense layer, and its filter in a convolution.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison
from wtdiag.probes.kernels.nulls import random_unit_angles
from wtdiag.probes.registry import probe, shared

Array = NDArray[Any]


def by_unit(weight: Array, groups: int = 1, transposed: bool = False) -> Array:
    """Return a weight with any number of axes as (output unit, weights of the unit).

    Examples
    --------
    >>> by_unit(np.zeros((6, 4, 3)), groups=2).shape, by_unit(np.zeros((6, 4, 3)), 2, transposed=True).shape
    ((6, 12), (8, 9))
    """
    if transposed:  # (in, out / groups, ...)
        blocks = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        weight = blocks.swapaxes(1, 2).reshape(groups * weight.shape[1], -1, *weight.shape[2:])
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))


@shared
def unit_angle_quartiles(weight_comparison: Comparison) -> NDArray[np.float64]:
    """Quartiles over output units of the angle between W and B, in degrees; units of zero weights do not count."""
    angles = np.sort(weight_comparison.row_angles)  # NaN last
    count = np.count_nonzero(~np.isnan(angles))
    if not count:
        return np.full(3, math.nan)
    return np.interp((count - 1) * np.array([0.25, 0.5, 0.75]), np.arange(count), angles[:count])


def _null(forward: Array, groups: int, transposed: bool, column: int) -> tuple[float, float]:
    mean, sd = random_unit_angles(*by_unit(forward, groups, transposed).shape)
    return mean[column], sd[column]


_EQUATION = "of ∠(Wᵤ, Bᵤ) over the output units u"
_REFERENCE = "Lillicrap et al. 2014, arXiv:1411.0247"


@probe(
    units="degree",
    long_name="lower quartile over output units of the angle between forward and feedback weights",
    equation=f"first quartile {_EQUATION}",
    reference=_REFERENCE,
    null=lambda forward, groups=1, transposed=False: _null(forward, groups, transposed, 0),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
    entrywise=True,
)
def unit_angle_lower_quartile(unit_angle_quartiles: NDArray[np.float64]) -> float:
    """Angle below which a quarter of the output units lie.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["unit_angle_lower_quartile"](forward=np.eye(5), feedback=np.eye(5))
    0.0
    """
    return float(unit_angle_quartiles[0])


@probe(
    units="degree",
    long_name="median over output units of the angle between forward and feedback weights",
    equation=f"median {_EQUATION}",
    reference=_REFERENCE,
    null=lambda forward, groups=1, transposed=False: _null(forward, groups, transposed, 1),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
    entrywise=True,
)
def unit_angle_median(unit_angle_quartiles: NDArray[np.float64]) -> float:
    """Median of the output units' angles, in which large units count no more than small ones.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["unit_angle_median"](forward=np.diag([1.0, 1, 9]), feedback=np.diag([1.0, 1, -9]))
    0.0
    """
    return float(unit_angle_quartiles[1])


@probe(
    units="degree",
    long_name="upper quartile over output units of the angle between forward and feedback weights",
    equation=f"third quartile {_EQUATION}",
    reference=_REFERENCE,
    null=lambda forward, groups=1, transposed=False: _null(forward, groups, transposed, 2),
    subject="feedback",
    bounds=(0, 180),
    neutral=90,
    entrywise=True,
)
def unit_angle_upper_quartile(unit_angle_quartiles: NDArray[np.float64]) -> float:
    """Angle above which a quarter of the output units lie.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["unit_angle_upper_quartile"](forward=np.diag([1.0, 1, 9]), feedback=np.diag([1.0, -1, -9]))
    180.0
    """
    return float(unit_angle_quartiles[2])
