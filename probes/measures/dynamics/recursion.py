"""The linear recursion that B follows while W stands still, with its curvature and its fixed point.

The gradient that B descends is affine, ∂B = H B − T, with a symmetric H ≥ 0 that depends on the rule and on the layer's
activations. Every prediction follows from products H V, and two calls of the rule's own gradient give such a product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, cg

from wtdiag.probes.registry import declare, shared

Array = NDArray[Any]
Matrix = NDArray[np.float64]

# Residual of a fixed point, relative to T, and the largest number of products, which cost little in a dense layer.
_DENSE = 1e-6, 200
_KERNEL = 1e-4, 100
_LOST = 0.05  # a larger residual is not a solution
_ROUNDING = 1e-3  # of the largest curvature: float32 may turn a curvature of zero into this if T is large

declare(law="how the layer's feedback learns, a `FeedbackLaw`")


class FeedbackChannel(Protocol):
    """A part of B on which H acts in the same way as on all parts."""

    shape: tuple[int, ...]

    def product(self, v: Array) -> Array:
        """Return H v, with the optimiser's weight decay as a part of H."""

    def deviations(self, basis: Array) -> Array:
        """Return the deviation of each example's H from their mean between the elements of a basis, (example, k, k)."""


class FeedbackLaw(Protocol):
    """How a layer's feedback learns, at the weights and the activations of one step."""

    lr: float
    """Learning rate of the step; NaN if it is not known."""
    optimizer: str
    """Optimiser of B, by its name in `probes.records.optimizers`."""
    momentum: float
    nesterov: bool
    interval: int
    """Steps from one update of B to the next."""
    weight_decay: float
    """Decay that the optimiser adds to the gradient of B."""
    update_noise: float
    """Standard deviation of the noise added to each entry of B, relative to W, in an update."""
    batch: int
    """Number of examples in a step."""

    def gradient(self, feedback: Array) -> Array:
        """Return the rule's gradient at B, averaged over the batch; it is affine in B."""

    def noise(self, feedback: Array, draws: int) -> Array:
        """Draw the noise of a minibatch's gradient at B, which is its deviation from the mean; (draw, *shape of B)."""

    def channel(self) -> FeedbackChannel | None:
        """Return the curvature of one channel of B for each example; None if it is the same for all, or not known."""

    def white(self) -> tuple[float, int, float] | None:
        """Return (d, m, decay) if H is decay · I plus the mean of m products of noise, each of which acts on d entries.

        d includes the excess kurtosis of the noise.
        """


class Drift:
    """The mean gradient of B at fixed W, ∂B = H B − T, in float64.

    Parameters
    ----------
    law
        Provides the gradient.
    forward, feedback
        W and B. The gradient is evaluated at matrices of their size, so that T does not drown H V.
    """

    def __init__(self, law: FeedbackLaw, forward: Array, feedback: Array) -> None:
        self._law = law
        # Convolutions are slow in float64, and float32 is accurate enough for what follows from them.
        self._dtype = np.dtype(np.float64) if feedback.ndim == 2 else feedback.dtype
        self._size = max(float(np.max(np.abs(weight), initial=0.0)) for weight in (forward, feedback)) or 1.0
        self.target = -self._gradient(np.zeros(feedback.shape))

    def _gradient(self, feedback: Matrix) -> Matrix:
        with np.errstate(all="ignore"):
            return np.asarray(self._law.gradient(feedback.astype(self._dtype)), np.float64)

    def noise(self, feedback: Matrix, draws: int) -> Matrix:
        """Draw the noise of the gradient at B; (draw, *shape of B)."""
        with np.errstate(all="ignore"):
            return np.asarray(self._law.noise(feedback.astype(self._dtype), draws), np.float64)

    def product(self, v: Matrix) -> Matrix:
        """Return H V, with the optimiser's weight decay as a part of H; not finite if it overflows."""
        with np.errstate(all="ignore"):
            scale = self._size / np.max(np.abs(v), initial=0.0)
            if not math.isfinite(scale):
                return np.zeros_like(v)
            learned = (self._gradient(scale * v) + self.target) / scale
            return np.asarray(learned + self._law.weight_decay * v)


@shared
def drift(law: FeedbackLaw, forward: Array, feedback: Array) -> Drift | None:
    """Mean gradient of B at fixed W; None if a weight is not finite or there are no weights."""
    usable = forward.size and np.isfinite(forward).all() and np.isfinite(feedback).all()
    return Drift(law, forward, feedback) if usable else None


@dataclass(frozen=True)
class Rest:
    """Point where B comes to rest at fixed W.

    Attributes
    ----------
    point : ndarray
        The fixed point B*.
    curvature : float
        ⟨B*, H B*⟩ / ⟨B*, B*⟩; NaN for a fixed point at zero.
    """

    point: Matrix
    curvature: float


@shared
def rest(drift: Drift | None, feedback: Array) -> Rest | None:
    """Solution of H B* = T by conjugate gradients from B, which leave the part of B that H does not reach as it is.

    None if there is no such point or it does not attract B: H is not positive semidefinite, or T is out of its reach.

    References
    ----------
    Hestenes and Stiefel 1952, doi:10.6028/jres.049.044.
    """
    if drift is None or not np.isfinite(drift.target).all():
        return None
    shape = feedback.shape
    quotients = [0.0, 0.0]  # smallest and largest Rayleigh quotient

    def product(v: Matrix) -> Matrix:
        made = drift.product(v.reshape(shape)).ravel()
        quotient = float(v @ made) / max(float(v @ v), 1e-300)
        quotients[:] = min(quotients[0], quotient), max(quotients[1], quotient)
        return made

    operator = LinearOperator((feedback.size, feedback.size), product, dtype=np.float64)
    target, start = drift.target.ravel(), feedback.astype(np.float64).ravel()
    tolerance, most = _DENSE if feedback.ndim == 2 else _KERNEL
    with np.errstate(all="ignore"):
        solution, _ = cg(operator, target, x0=start, rtol=tolerance, maxiter=most)
        if not np.isfinite(solution).all():
            return None
        if not solution.any():
            product(start)  # no quotient has been taken yet that shows whether zero attracts B
        made = product(solution)
        residual = float(np.linalg.norm(made - target))
        attracts = quotients[1] > 0 and quotients[0] >= -_ROUNDING * quotients[1]
        if not attracts or not residual <= _LOST * float(np.linalg.norm(target)):
            return None
        square = float(solution @ solution)
        return Rest(solution.reshape(shape), float(solution @ made) / square if square else math.nan)
