"""How far feedback weights point away from forward weights, one output unit at a time.

An output unit's weights are its row of a dense layer, its filter in a convolution.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.comparison import Comparison, rescale
from probes.nulls import random_unit_angles
from probes.registry import probe, shared

Array = NDArray[Any]

_BLOCK = 16384  # entries; the float64 copies of a block of rows stay in the second-level cache
_NEARLY_ONE = 1 - 1e-6  # a larger cosine no longer resolves its angle to 1e-9 degrees


@shared
def unit_angles(
    weight_comparison: Comparison, forward: Array, feedback: Array, groups: int = 1, transposed: bool = False
) -> NDArray[np.float64]:
    """Angle between W and B in each output unit, in degrees; NaN where either has no weights above the floor.

    None at all where W and B do not compare as a whole. ``transposed`` says that the first axis is the input's.
    """
    if math.isnan(weight_comparison.angle):
        return np.empty(0)
    (w, w_floor), (b, b_floor) = (rescale(by_unit(weight, groups, transposed)) for weight in (forward, feedback))
    angles = np.empty(len(w))
    step = max(1, _BLOCK // w.shape[1])
    for start in range(0, len(w), step):
        rows = slice(start, start + step)
        angles[rows] = _row_angles(w[rows].astype(np.float64), b[rows].astype(np.float64), w_floor, b_floor)
    return angles


def by_unit(weight: Array, groups: int = 1, transposed: bool = False) -> Array:
    """Lay a weight of any rank out as (output unit, its weights).

    Examples
    --------
    >>> by_unit(np.zeros((6, 4, 3)), groups=2).shape, by_unit(np.zeros((6, 4, 3)), 2, transposed=True).shape
    ((6, 12), (8, 9))
    """
    if transposed:  # (in, out / groups, ...)
        blocks = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        weight = blocks.swapaxes(1, 2).reshape(groups * weight.shape[1], -1, *weight.shape[2:])
    return weight.reshape(weight.shape[0], math.prod(weight.shape[1:]))


def _row_angles(w: Array, b: Array, w_floor: float, b_floor: float) -> NDArray[np.float64]:
    ww, bb, wb = (np.einsum("ij,ij->i", x, y) for x, y in ((w, w), (b, b), (w, b)))
    w_norm, b_norm = np.sqrt(ww), np.sqrt(bb)
    above = (w_norm >= w_floor) & (b_norm >= b_floor)
    w_norm[~above] = b_norm[~above] = math.nan
    cosine = wb / w_norm / b_norm
    angles = np.arccos(np.clip(cosine, -1, 1))
    near = np.abs(cosine) >= _NEARLY_ONE
    if near.any():  # exact near 0 and π, where arccos is not
        x, y = w[near] / w_norm[near, None], b[near] / b_norm[near, None]
        angles[near] = 2 * np.arctan2(np.linalg.norm(x - y, axis=1), np.linalg.norm(x + y, axis=1))
    return np.asarray(np.degrees(angles), np.float64)


def _quantile(unit_angles: NDArray[np.float64], share: float) -> float:
    angles = unit_angles[~np.isnan(unit_angles)]
    return float(np.quantile(angles, share)) if angles.size else math.nan


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
)
def unit_angle_lower_quartile(unit_angles: NDArray[np.float64]) -> float:
    """Angle that a quarter of the output units stay below.

    Examples
    --------
    >>> from probes import PROBES
    >>> PROBES["unit_angle_lower_quartile"](forward=np.eye(5), feedback=np.eye(5))
    0.0
    """
    return _quantile(unit_angles, 0.25)


@probe(
    units="degree",
    long_name="median over output units of the angle between forward and feedback weights",
    equation=f"median {_EQUATION}",
    reference=_REFERENCE,
    null=lambda forward, groups=1, transposed=False: _null(forward, groups, transposed, 1),
)
def unit_angle_median(unit_angles: NDArray[np.float64]) -> float:
    """Median of the output units' angles; unlike the whole matrix's, no unit counts more for being large.

    Examples
    --------
    >>> from probes import PROBES
    >>> PROBES["unit_angle_median"](forward=np.diag([1.0, 1, 9]), feedback=np.diag([1.0, 1, -9]))
    0.0
    """
    return _quantile(unit_angles, 0.5)


@probe(
    units="degree",
    long_name="upper quartile over output units of the angle between forward and feedback weights",
    equation=f"third quartile {_EQUATION}",
    reference=_REFERENCE,
    null=lambda forward, groups=1, transposed=False: _null(forward, groups, transposed, 2),
)
def unit_angle_upper_quartile(unit_angles: NDArray[np.float64]) -> float:
    """Angle that a quarter of the output units exceed.

    Examples
    --------
    >>> from probes import PROBES
    >>> PROBES["unit_angle_upper_quartile"](forward=np.diag([1.0, 1, 9]), feedback=np.diag([1.0, -1, -9]))
    180.0
    """
    return _quantile(unit_angles, 0.75)
