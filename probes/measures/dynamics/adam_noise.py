"""The variance of B around its fixed point under Adam, whose noise sets the size of its own steps.

Adam divides by the root mean square v of each entry's gradient. At rest v hardly changes, so that Adam is gradient
descent of momentum β₁ in the coordinates √P (B − B*), P = diag √v, with curvature A = P^-½ H P^-½ and noise P^-½ n.
Every mode of A is an autoregressive process. v itself follows from the noise and from what it does, v = E[n²] +
E[(H(B − B*))²], which a few iterations solve. Where the noise is weak, A is so stiff that Adam rests at the edge of
its stability, with steps that no linear theory gives.

References
----------
Kingma and Ba 2015, arXiv:1412.6980, for Adam; Cohen et al. 2022, arXiv:2207.14484, for the edge of its stability; Golub
and Meurant 2010, Matrices, Moments and Quadrature, for the sum over modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.lanczos import modes

Matrix = NDArray[np.float64]

_BETA1 = 0.9  # PyTorch's default, as for β₂, whose memory of 1000 steps makes v constant
_EPSILON = 1e-8
_EDGE = 2 * (1 + _BETA1) / (1 - _BETA1)  # of η λ(A), where learning is no longer stable
_CALM = 0.5  # of the edge; closer to it, the noise feeds on itself
_SLOWEST = 1e-6  # of the largest curvature
_PRODUCTS, _TURNS = 8, 6
_SETTLED = 0.1  # relative change of the variance


def adam_variance(product: Callable[[Matrix], Matrix], noise: Matrix, lr: float) -> float:
    """Return E‖B − B*‖² at rest under Adam; NaN without noise, and where Adam rests at the edge of stability.

    Parameters
    ----------
    product
        Function that returns H V for V.
    noise
        Samples of the gradient's noise at B*; (draw, *shape of B).
    lr
        Learning rate.
    """
    # Over few samples, the mean of 1 / √v is larger than at the mean of v.
    own = np.mean(noise**2, axis=0) * (1 + 3 / (4 * len(noise))) ** 2
    if not noise[0].any() or not np.isfinite(own).all():
        return math.nan
    square, variance = own, math.nan
    for turn in range(_TURNS):
        root = (np.sqrt(square) + _EPSILON) ** -0.5
        curvature, weights, vectors = modes(partial(_preconditioned, product, root), root * noise[0], _PRODUCTS)
        edge = lr * curvature[-1] / _EDGE
        if turn == 0 and edge > _CALM:  # as a first guess, v is so large that learning is stable
            root, weights, curvature = (
                root * (_CALM / edge) ** 0.5,
                weights * (_CALM / edge) ** 0.5,
                curvature * _CALM / edge,
            )
            square = root**-4
            edge = _CALM
        if not 0 < edge < 1:
            return math.nan
        rates = lr * (1 - _BETA1) * np.maximum(curvature, _SLOWEST * curvature[-1])
        together = np.outer(weights, weights) * (lr * (1 - _BETA1)) ** 2 * _covariance(rates)
        flat = vectors.reshape(len(rates), -1)
        away = root.ravel() * flat
        before, variance = variance, float(np.sum(together * (away @ away.T)))
        if abs(variance - before) <= _SETTLED * variance:
            break
        pulled = curvature[:, None] * flat / root.ravel()
        pull = np.sum((together @ pulled) * pulled, axis=0).reshape(square.shape)
        square = np.sqrt(square * (own + np.maximum(pull, 0.0)))  # halfway, or the turns would swing
    return variance if edge <= _CALM else math.nan


def _preconditioned(product: Callable[[Matrix], Matrix], root: Matrix, v: Matrix) -> Matrix:
    return root * product(root * v)


def _covariance(rates: Matrix) -> Matrix:
    """Return E[x y] for each pair of modes at rest, driven by the same noise of variance 1.

    x is the autoregressive process xₜ₊₁ = φ xₜ − μ xₜ₋₁ + nₜ with φ = 1 + μ − rate, and y likewise with its own rate.
    """
    phi, mu = 1 + _BETA1 - rates, _BETA1
    x, y = phi[:, None], phi[None, :]
    lagged = (x * (x - mu * y) + y * (y - mu * x)) / (1 - mu**2)
    return np.asarray(1 / (1 - x * y - mu**2 + mu * lagged))
