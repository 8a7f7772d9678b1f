"""The learning of B while W stands still: how fast it is, and where it comes to rest.

All these measures follow from the recursion in `probes.measures.dynamics.recursion`. The steps of Adam do not scale
with the gradient, so for Adam the step-size number and the relaxation time are NaN; see
`probes.measures.dynamics.step_sizes` for what it has instead. Of the other optimisers neither is known.

Examples
--------
A law that draws B towards 2 W:

>>> from types import SimpleNamespace
>>> from wtdiag.probes import Quantities
>>> w, b = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[6.0, 8.0], [0.0, 8.0]])
>>> sgd = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "interval": 1, "weight_decay": 0.0}
>>> law = SimpleNamespace(gradient=lambda b: 0.5 * (b - 2 * w), lr=0.4, **sgd)
>>> layer = Quantities(forward=w, feedback=b, law=law)
>>> measures = "relaxation_time", "predicted_gain", "predicted_angle", "rest_distance"
>>> [round(layer[name], 6) for name in measures]
[5.0, 2.0, 0.0, 0.8]
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.comparison import Comparison, compare
from wtdiag.probes.kernels.lanczos import lanczos
from wtdiag.probes.kernels.random_products import resting_variance
from wtdiag.probes.measures.dynamics.adam_noise import adam_variance
from wtdiag.probes.measures.dynamics.recursion import Drift, FeedbackLaw, Rest
from wtdiag.probes.records.optimizers import theory
from wtdiag.probes.registry import probe, shared

Array = NDArray[Any]

_DRAWS = 4
_ADAM_DRAWS = 8  # Adam needs the variance of each entry
_SLOWEST = 1e-6  # of the largest curvature: slower modes are lost in float32, and do not come to rest in any run
_DERIVED = "wtdiag: the linear recursion ∂B = H B − T of the rule at fixed W"


@shared
def rest_comparison(forward: Array, rest: Rest | None) -> Comparison:
    """Comparison of W with the point where B comes to rest."""
    return compare(forward, np.full(forward.shape, math.nan) if rest is None else rest.point)


@probe(
    units="step",
    long_name="relaxation time of the feedback towards its fixed point",
    equation="τ = (1 − μ) k / (η ρ), ρ = ⟨B*, H B*⟩ / ⟨B*, B*⟩, with one update in k steps",
    reference=_DERIVED,
    subject="feedback",
    scale="log",
)
def relaxation_time(law: FeedbackLaw, rest: Rest | None) -> float:
    """Time, in steps, in which the distance to the fixed point shrinks by a factor of e, along the fixed point itself.

    It is infinite for a learning rate of zero. If H is stiff, parts of B that matter little are far slower.
    """
    if rest is None or theory(law.optimizer) != "sgd" or not rest.curvature > 0:
        return math.nan
    rate = law.lr * rest.curvature
    return law.interval * (1 - law.momentum) / rate if rate else math.inf


@probe(
    units="1",
    long_name="gain of the feedback's fixed point",
    equation="⟨B*, W⟩ / ⟨W, W⟩",
    reference=_DERIVED,
    subject="feedback",
    bounds=(-math.inf, math.inf),
    neutral=1,
    scale="log",
    predicts="weight_gain",
)
def predicted_gain(rest_comparison: Comparison) -> float:
    """Gain of the feedback at rest: the multiple of W that it contains along W."""
    w, b = rest_comparison.first_norm, rest_comparison.second_norm
    if not b:
        return 0.0 if w else math.nan
    return b / w * math.cos(math.radians(rest_comparison.angle)) if w else math.nan


@probe(
    units="degree",
    long_name="angle between the feedback's fixed point and the forward weights",
    equation="∠(B*, W)",
    reference=_DERIVED,
    subject="feedback",
    bounds=(0, 180),
    predicts="weight_angle",
)
def predicted_angle(rest_comparison: Comparison) -> float:
    """Weight angle that longer training approaches but does not go below, at these W and activations."""
    return rest_comparison.angle


@probe(
    units="degree",
    long_name="angle that noise adds to the feedback at rest",
    equation="arctan(√E‖B − B*‖² / ‖B*‖); per mode, without momentum, E = s² / (r(2 − r)), r = η λ",
    reference="Mandt, Hoffman and Blei 2017, arXiv:1704.04289; Golub and Meurant 2010 for the sum over modes",
    subject="feedback",
    bounds=(0, 90),
)
def predicted_noise_angle(
    law: FeedbackLaw, drift: Drift | None, rest: Rest | None, mean_step_size_number: float
) -> float:
    """Angle between the fixed point and a B that noise of minibatches, noise inputs and updates keeps moving.

    The noise is taken to be independent of B*, so that in many dimensions it is at right angles to it. The angle is
    NaN if learning is unstable. Under Adam it is also NaN for noise of updates, and where `adam_variance` is. It is not
    known for optimisers other than SGD, Adam and AdamW.
    """
    if drift is None or rest is None or not rest.point.any():
        return math.nan
    size = float(np.linalg.norm(rest.point))
    if theory(law.optimizer) == "adam" and law.lr > 0 and not law.update_noise:
        with np.errstate(all="ignore"):
            variance = adam_variance(drift.product, drift.noise(rest.point, _ADAM_DRAWS), law.lr)
        return math.degrees(math.atan(math.sqrt(variance) / size)) if 0 <= variance < math.inf else math.nan
    if not 0 < mean_step_size_number < 1:
        return math.nan
    rate = law.lr

    def of_gradient(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        return float(weights @ resting_variance(rate * _floored(values), law.momentum, law.nesterov)[0])

    def of_update(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
        return float(weights @ resting_variance(rate * _floored(values), law.momentum, law.nesterov)[1])

    generator = np.random.default_rng(0)
    variance = 0.0
    with np.errstate(all="ignore"):
        for noise in drift.noise(rest.point, _DRAWS):
            if noise.any():
                variance += float(np.linalg.norm(rate * noise)) ** 2 * lanczos(drift.product, noise, of_gradient)
        for _ in range(_DRAWS if law.update_noise else 0):
            signs = generator.choice((-1.0, 1.0), rest.point.shape)
            variance += law.update_noise**2 * signs.size * lanczos(drift.product, signs, of_update)
    if not 0 <= variance < math.inf:  # near the limit of stability, which S knows only to its accuracy
        return math.nan
    return math.degrees(math.atan(math.sqrt(variance / _DRAWS) / size))


def _floored(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(values, _SLOWEST * np.max(values))


@probe(
    units="1",
    long_name="distance of the feedback to its fixed point, relative to the norm of the fixed point",
    equation="‖B − B*‖ / ‖B*‖",
    reference=_DERIVED,
    subject="feedback",
)
def rest_distance(feedback: Array, rest: Rest | None) -> float:
    """Relative distance of B to its fixed point; it is large if B cannot follow W or is disturbed."""
    if rest is None or not rest.point.any():
        return math.nan
    size = float(np.max(np.abs(rest.point)))  # keeps squares in range
    with np.errstate(all="ignore"):
        apart = np.linalg.norm(feedback / size - rest.point / size) / np.linalg.norm(rest.point / size)
    return float(apart) if math.isfinite(apart) else math.nan


@probe(
    units="1",
    long_name="relaxation time of the feedback, relative to the time in which the forward weights change",
    equation="τ · η‖∂W‖ / ‖W‖ · (k − 1) / k if B alone learns in one of k steps, else without the last factor",
    reference="wtdiag: feedback that relaxes more slowly than W moves fails even at a small angle",
    subject="feedback",
    limit=1,
    scale="log",
)
def tracking_lag(law: FeedbackLaw, relaxation_time: float, relative_update: float) -> float:
    """Relative change of W while the feedback relaxes; above 1 the feedback cannot follow."""
    moving = (law.interval - 1) / law.interval if law.interval > 1 else 1.0  # share of the steps in which W learns
    return relaxation_time * moving * relative_update
