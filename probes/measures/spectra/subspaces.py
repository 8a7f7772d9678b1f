"""Angles between the subspaces of the first singular vectors of W and B: whether both use the same directions most.

On the output side (left vectors) they show which errors the feedback passes on, and on the input side (right vectors)
where it sends them. With groups each block has its own angles, because no error crosses groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.nulls import random_principal_angles
from wtdiag.probes.measures.spectra.singular_values import Spectrum, Subspaces, decompose
from wtdiag.probes.registry import probe, shared

MODES = 10  # number of singular vectors that are compared, or all if a block has fewer
_SIDES = ("output", "input")


@dataclass(frozen=True)
class PrincipalAngles:
    """Principal angles between two stacks of subspaces, in degrees, and the dimension of the whole space."""

    values: NDArray[np.float64]  # (block, mode), ascending in each block; empty where undefined
    dimension: int


_NONE = PrincipalAngles(np.empty((0, 0)), 0)


def principal_angles(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles between the subspaces that orthonormal columns span, in degrees, ascending, for stacks of both.

    They follow from their cosines where these are below √½, and elsewhere from their sines, because a cosine near 1
    does not resolve its angle.

    References
    ----------
    Björck and Golub 1973, doi:10.2307/2005662

    Examples
    --------
    >>> principal_angles(np.eye(3)[:, :2], np.eye(3)[:, 1:]).round(12)
    array([ 0., 90.])
    """
    inner = first.swapaxes(-1, -2) @ second
    cosines = np.linalg.svd(inner, compute_uv=False)
    sines = np.linalg.svd(second - first @ inner, compute_uv=False)[..., ::-1]
    angles = np.where(cosines**2 < 0.5, np.arccos(np.minimum(cosines, 1)), np.arcsin(np.minimum(sines, 1)))
    return np.asarray(np.degrees(angles))


@shared
def subspace_pairs(
    forward: NDArray[Any],
    feedback: NDArray[Any],
    forward_spectrum: Spectrum,
    feedback_spectrum: Spectrum,
    groups: int = 1,
    direct: bool = False,
    vectors: int = MODES,
) -> tuple[Subspaces, Subspaces] | None:
    """Subspaces of W and of B; None if they cannot be compared, or if ties or zeros leave them undetermined.

    They come with the spectra. A spectrum that was computed without them is computed again.
    """
    if direct or forward.shape != feedback.shape:
        return None
    of_both = []
    for weight, spectrum in ((forward, forward_spectrum), (feedback, feedback_spectrum)):
        floor = float(np.finfo(weight.dtype if weight.dtype.kind == "f" else np.float64).tiny)
        if not spectrum.nonzero.size or spectrum.norm < floor:
            return None
        subspaces = spectrum.subspaces or decompose(weight, groups, vectors).subspaces
        if subspaces is None or np.isnan(subspaces[0]).any():
            return None
        of_both.append(subspaces)
    return of_both[0], of_both[1]


@shared
def output_angles(subspace_pairs: tuple[Subspaces, Subspaces] | None) -> PrincipalAngles:
    """Compare the left singular vectors."""
    return _angles(subspace_pairs, 0)


@shared
def input_angles(subspace_pairs: tuple[Subspaces, Subspaces] | None) -> PrincipalAngles:
    """Compare the right singular vectors."""
    return _angles(subspace_pairs, 1)


def _angles(pairs: tuple[Subspaces, Subspaces] | None, side: int) -> PrincipalAngles:
    if pairs is None:
        return _NONE
    w, b = pairs[0][side], pairs[1][side]
    return PrincipalAngles(principal_angles(w, b), w.shape[1])


def _null(angles: PrincipalAngles, largest: bool) -> tuple[float, float]:
    if not angles.values.size:
        return math.nan, math.nan
    blocks, modes = angles.values.shape
    return random_principal_angles(angles.dimension, modes, blocks)[largest]


@probe(
    units="degree",
    long_name="mean principal angle on the {side} side between the first singular vectors of W and B",
    equation=f"mean of θᵢ, cos θᵢ = σᵢ(U_Wᵀ U_B), U the first {MODES} singular vectors (or all)",
    reference="Björck and Golub 1973, doi:10.2307/2005662",
    null=lambda angles: _null(angles, False),
    sides=_SIDES,
    subject="feedback",
    bounds=(0, 90),
    neutral=90,
)
def principal_angle_mean(angles: PrincipalAngles) -> float:
    """Mean angle between the top singular subspaces; 0, as by chance, if these are the whole space.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> weights = {"forward": np.diag([3.0, 2, 1, 0.1]), "feedback": np.diag([1, 3.0, 0.1, 2])}
    >>> round(PROBES["output_principal_angle_mean"](**weights, vectors=2), 6)
    45.0
    """
    return float(angles.values.mean()) if angles.values.size else math.nan


@probe(
    units="degree",
    long_name="largest principal angle on the {side} side between the first singular vectors of W and B",
    equation=f"max of θᵢ, cos θᵢ = σᵢ(U_Wᵀ U_B), U the first {MODES} singular vectors (or all)",
    reference="Björck and Golub 1973, doi:10.2307/2005662",
    null=lambda angles: _null(angles, True),
    sides=_SIDES,
    subject="feedback",
    bounds=(0, 90),
    neutral=90,
)
def principal_angle_max(angles: PrincipalAngles) -> float:
    """Largest angle between the top singular subspaces; 90° if one has a direction that the other lacks.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> weights = {"forward": np.diag([3.0, 2, 1, 0.1]), "feedback": np.diag([1, 3.0, 0.1, 2])}
    >>> round(PROBES["input_principal_angle_max"](**weights, vectors=2), 6)
    90.0
    """
    return float(angles.values.max()) if angles.values.size else math.nan
