"""Costs of a layer's feedback, and the layer that they blame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.probes import Measure

_REFERENCE = "Shapley 1953, A value for n-person games; layers that carry error are the players"

COSTS = {
    each.name: each
    for each in (
        Measure(
            name="attribution_angle",
            units="degree",
            long_name="angle that the layer's feedback adds to the error angle at the first layer",
            equation="Shapley value of ∠(δ, δ*), with B in some layers and W in the others",
            reference=_REFERENCE,
            subject="feedback",
            bounds=(-180, 180),
        ),
        Measure(
            name="attribution_loss",
            units="1",
            long_name="share of backpropagation's one-step decrease of the loss that the layer's feedback costs",
            equation="Shapley value of 1 − ΔL / ΔL*, with B in some layers and W in the others",
            reference=_REFERENCE,
            subject="feedback",
            bounds=(-math.inf, math.inf),
        ),
        Measure(
            name="attribution_angle_se",
            units="degree",
            long_name="standard error of the angle that the layer's feedback adds",
            equation="√(Σ (share − mean)² / n(n − 1)) over n orders of the layers; 0 over all of them",
            reference=_REFERENCE,
            subject="feedback",
        ),
        Measure(
            name="attribution_loss_se",
            units="1",
            long_name="standard error of the share of the loss that the layer's feedback costs",
            equation="√(Σ (share − mean)² / n(n − 1)) over n orders of the layers; 0 over all of them",
            reference=_REFERENCE,
            subject="feedback",
        ),
    )
}

_CLOSE = 2.0  # standard errors of a difference
_NEAR = 0.9  # of the largest cost: what is as large costs the same
_FEW = 3  # layers that can be blamed together


@dataclass(frozen=True)
class Culprits:
    """The layers whose feedback is to blame, as indices from the bottom up; none if it is spread over many.

    Attributes
    ----------
    layers : tuple of int
        One layer, or up to three that share the blame.
    share : float
        Their share of the angles that all layers add, without negative ones.
    """

    layers: tuple[int, ...]
    share: float

    def said(self, names: Sequence[str]) -> str:
        """Return who is to blame, in words that follow "is due to".

        Examples
        --------
        >>> Culprits((1, 2), 0.9).said(("fc1", "fc2", "fc3")), Culprits((), 0.0).said(("fc1",))
        ('fc2 and fc3 together', 'many layers, of which none stands out')
        """
        blamed = [str(names[layer]) for layer in self.layers]
        if not blamed:
            return "many layers, of which none stands out"
        return listed(blamed) if len(blamed) == 1 else f"{listed(blamed)} together"


def culprits(costs: Mapping[str, NDArray[np.float64]]) -> Culprits | None:
    """Return the layers whose feedback is to blame for the error at the first layer; None if none adds an angle.

    By each of the two costs, in degrees and in the loss, the largest is blamed together with those that its standard
    error does not tell from it, or that nearly equal it. Layers that both costs blame are the culprits; if there are
    none, those that either blames share it. Every place that names a culprit asks here.

    Parameters
    ----------
    costs
        Measures of `COSTS` at one step, by layer; a standard error that is missing counts as zero.

    Examples
    --------
    >>> blamed = culprits({"attribution_angle": np.array([1.0, 30.0, 29.0])})
    >>> blamed.layers, round(blamed.share, 2)
    ((1, 2), 0.98)
    """
    angles, by_angle = _largest(costs, "attribution_angle")
    if not by_angle.any():
        return None
    by_loss = _largest(costs, "attribution_loss")[1]
    both = by_angle & by_loss
    blamed = both if both.any() else by_angle | by_loss
    layers = tuple(np.flatnonzero(blamed).tolist())
    return Culprits(layers if len(layers) <= _FEW else (), float(angles[blamed].sum() / angles.sum()))


def _largest(costs: Mapping[str, NDArray[np.float64]], name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the positive costs by layer, and which of them may be the largest."""
    given = np.asarray(costs.get(name, np.zeros_like(costs["attribution_angle"])), np.float64)
    cost = np.where(np.isfinite(given), np.fmax(given, 0), 0)  # an unknown cost counts as 0
    if not cost.any():
        return cost, np.zeros(len(cost), dtype=bool)
    error = np.nan_to_num(np.asarray(costs.get(f"{name}_se", np.zeros_like(cost)), np.float64))
    # After few orders the error of one layer is itself uncertain: it is not taken to be below that of all of them.
    pooled = np.fmax(error, math.sqrt(float(np.mean(error[cost > 0] ** 2))))
    worst = int(np.argmax(cost))
    reach = np.fmax(_CLOSE * np.hypot(pooled, pooled[worst]), (1 - _NEAR) * cost[worst])
    return cost, (cost > 0) & (cost[worst] - cost <= reach)
