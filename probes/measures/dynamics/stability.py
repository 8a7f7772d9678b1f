"""The step-size number: whether the learning of B at fixed W is stable, for its mean and with the batches that it gets.

Examples
--------
>>> from types import SimpleNamespace
>>> from wtdiag.probes import Quantities
>>> w, b = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[6.0, 8.0], [0.0, 8.0]])
>>> sgd = {"optimizer": "sgd", "momentum": 0.0, "nesterov": False, "interval": 1, "weight_decay": 0.0}
>>> constant = {"batch": 8, "channel": lambda: None, "white": lambda: None}
>>> law = SimpleNamespace(gradient=lambda b: 0.5 * (b - 2 * w), lr=0.4, **sgd, **constant)
>>> layer = Quantities(forward=w, feedback=b, law=law)
>>> round(layer["mean_step_size_number"], 6), round(layer["step_size_number"], 6)
(0.1, 0.1)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.krylov import krylov
from wtdiag.probes.kernels.lanczos import lanczos
from wtdiag.probes.kernels.random_products import fluctuation_factor, limit_of_rate, resting_variance
from wtdiag.probes.measures.dynamics.recursion import Drift, FeedbackLaw
from wtdiag.probes.records.optimizers import theory
from wtdiag.probes.registry import probe

Vector = NDArray[np.float64]

_MODES, _KERNEL_MODES = 64, 24  # in dense layers, where they cost little, and in convolutions


@probe(
    units="1",
    long_name="step-size number of the feedback's learning from the mean of all batches",
    equation="S̄ = η λmax(E[H]) / (2(1 + μ)); Nesterov: η λmax(E[H]) (1 + 2μ) / (2(1 + μ))",
    reference="Polyak 1964, doi:10.1016/0041-5553(64)90137-5; λmax by Lanczos iteration on the rule's own gradient",
    subject="feedback",
    limit=1,
    scale="log",
    label="step-size number of the mean",
)
def mean_step_size_number(law: FeedbackLaw, drift: Drift | None) -> float:
    """Learning rate of the feedback over the largest one at which learning would be stable if batches did not differ.

    H comes from the rule and the layer's activations, and includes the optimiser's weight decay. The number is accurate
    to about 1 %. It is infinite if H overflows, and NaN for optimisers other than SGD and for an unknown learning rate.
    """
    if drift is None or theory(law.optimizer) != "sgd" or math.isnan(law.lr):
        return math.nan
    start = np.random.default_rng(0).normal(size=drift.target.shape)
    largest = lanczos(drift.product, start, lambda values, _: float(values[-1]), tolerance=1e-3)
    return law.lr * largest / limit_of_rate(law.momentum, law.nesterov) if law.lr else 0.0


@probe(
    units="1",
    long_name="step-size number of the feedback's learning, which is unstable above 1",
    equation="S = η / η*, where the product of all I − η H(batch) neither grows nor shrinks at η*; "
    "H equal in all batches: S = η λmax(H) / (2(1 + μ))",
    reference="Furstenberg and Kesten 1960, doi:10.1214/aoms/1177705909, for random products; docs/theory.md",
    subject="feedback",
    limit=1,
    scale="log",
    label="step-size number S",
)
def step_size_number(law: FeedbackLaw, drift: Drift | None, mean_step_size_number: float) -> float:
    """Learning rate of the feedback over the largest one at which its learning from random batches is stable.

    It exceeds `mean_step_size_number` because H differs from batch to batch, which momentum amplifies. It is accurate
    to about 5 %, and NaN or infinite where that number is.
    """
    if drift is None or not 0 < mean_step_size_number < math.inf:
        return mean_step_size_number
    if (white := law.white()) is not None:
        return law.lr / _limit_for_noise(drift, law, *white)
    return mean_step_size_number / _factor_of_batches(law)


def _factor_of_batches(law: FeedbackLaw) -> float:
    """Return the largest stable rate for batches relative to that for their mean, along `_MODES` vectors at most."""
    channel = law.channel()
    if channel is None:
        return 1.0
    start = np.random.default_rng(0).normal(size=channel.shape)
    basis, mean = krylov(channel.product, start, _MODES if start.ndim == 2 else _KERNEL_MODES)
    deviations = channel.deviations(basis)
    if not (np.isfinite(mean).all() and np.isfinite(deviations).all()):
        return 1.0
    return fluctuation_factor(mean, deviations, law.batch, law.momentum, law.nesterov)


def _limit_for_noise(drift: Drift, law: FeedbackLaw, dimension: float, samples: int, decay: float) -> float:
    """Return the rate above which the mean square of B grows without end, for B that learns from noise.

    With the fourth moments of Gaussian noise, the second moments of B along the eigenvectors of H depend on each other
    as p ← η² f(r) (λ² p + λ Σ λ p) / m, with f the variance at rest per variance of the noise, r = η (λ + decay), and
    m products of noise in a step. So at the limit Σ a / (1 − a) = 1 over all d modes, where a = η² λ² f / m.
    """
    from scipy.optimize import bisect  # here, because reports import this module for its definitions alone

    decay += law.weight_decay
    most = limit_of_rate(law.momentum, law.nesterov)

    def measure(values: Vector, weights: Vector) -> float:
        own, highest = np.maximum(values - decay, 0.0), most / float(values.max())

        def excess(rate: float) -> float:
            rates = rate * np.maximum(values, 1e-12 * values.max())
            with np.errstate(all="ignore"):
                response = resting_variance(rates, law.momentum, law.nesterov)[0]
                a = (rate * own) ** 2 / samples * response
            inside = rate < highest and a.max() < 1
            return float(dimension * weights @ (a / (1 - a))) - 1 if inside else math.inf

        # The sum grows with the rate, and is infinite at the latest where the mean is unstable.
        return float(bisect(lambda rate: min(excess(rate), 1.0), 1e-9 * highest, highest, xtol=1e-6 * highest))

    starts = np.random.default_rng(0).normal(size=(max(1, min(8, 2048 // drift.target.size)), *drift.target.shape))
    return float(np.mean([lanczos(drift.product, start, measure, tolerance=1e-3) for start in starts]))
