"""Growth of products of random matrices: gradient descent whose curvature differs from step to step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_CHAINS, _STEPS, _BURN_IN, _RESCALED = 8, 240, 80, 10
_SMALLEST = 0.003  # of the largest curvature: weaker modes hardly fluctuate, and decay too slowly for so few steps
_WIDEST = 2.0**20
_CLOSE = 0.95  # the two limits then differ by less than the accuracy of the chains


def limit_of_rate(momentum: float, nesterov: bool) -> float:
    """Return the largest stable learning rate for a curvature of 1 that is the same in each step.

    It is 2(1 + μ), or 2(1 + μ) / (1 + 2μ) in Nesterov's form.

    References
    ----------
    Polyak 1964, doi:10.1016/0041-5553(64)90137-5.

    Examples
    --------
    >>> limit_of_rate(0.5, nesterov=False), limit_of_rate(0.5, nesterov=True)
    (3.0, 1.5)
    """
    return 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1.0)


def resting_variance(rate: Matrix, momentum: float, nesterov: bool) -> tuple[Matrix, Matrix]:
    """Return the variance of stochastic gradient descent on ½λB² at rest, per variance of its noise.

    With r = lr·λ and momentum μ, B is the autoregressive process Bₜ₊₁ = φ₁Bₜ + φ₂Bₜ₋₁ + c₀nₜ + c₁nₜ₋₁ with
    φ = (1 + μ − r, −μ), or (1 + μ)(1 − r), −μ(1 − r) in Nesterov's form. Its variance is
    [(c₀² + c₁²)(1 − φ₂) + 2c₀c₁φ₁] / [(1 + φ₂)(1 − φ₁ − φ₂)(1 + φ₁ − φ₂)], which is 1 / (r(2 − r)) for μ = 0.

    Parameters
    ----------
    rate
        r, in the stable region.
    momentum, nesterov
        The parameters of `torch.optim.SGD`.

    Returns
    -------
    of_gradient, of_update : ndarray
        The variance for noise of variance 1 in lr·gradient, with c = (1, 0), or (1 + μ, −μ) in Nesterov's form, and the
        variance for noise that is added to B after the step, with c = (1, −μ).

    References
    ----------
    Box and Jenkins 1976, Time Series Analysis, section 3.4.

    Examples
    --------
    >>> resting_variance(np.array([1.0]), 0.0, False)
    (array([1.]), array([1.]))
    """
    first, second = ((1 + momentum) * (1 - rate), -momentum * (1 - rate)) if nesterov else (
        1 + momentum - rate, -momentum
    )  # fmt: skip
    # 1 - first - second is the rate, in either form.
    poles = (1 + second) * rate * (1 + first - second)

    def variance(now: float, before: float) -> Matrix:
        return np.asarray(((now**2 + before**2) * (1 - second) + 2 * now * before * first) / poles)

    return variance(1 + momentum, -momentum) if nesterov else variance(1.0, 0.0), variance(1.0, -momentum)


def fluctuation_factor(
    mean: Matrix, deviations: Matrix, batch: int, momentum: float = 0.0, nesterov: bool = False
) -> float:
    """Return the largest stable learning rate for random batches, relative to that for the mean of all examples.

    A batch of n examples, drawn with replacement, has the curvature H̄ + Σ Dᵢ / n. Its descent is a product of random
    matrices, whose norm grows or shrinks almost surely as exp(γ t), with the same exponent γ for nearly all starting
    points. The limit is the rate at which γ, the largest Lyapunov exponent, becomes positive. γ is measured on a few
    chains of one and the same sequence of batches for all rates, so the result is always the same. Where batches hardly
    matter, the limit of the mean square is taken instead, which lies a little below and needs no chains.

    Parameters
    ----------
    mean
        H̄, symmetric; (k, k).
    deviations
        The Dᵢ, whose mean is zero; (example, k, k).
    batch
        n.
    momentum, nesterov
        The parameters of `torch.optim.SGD`.

    Returns
    -------
    float
        The ratio of the two limits; 1 without deviations.

    References
    ----------
    Furstenberg and Kesten 1960, doi:10.1214/aoms/1177705909.

    Examples
    --------
    Without momentum, x ← (1 − η h) x shrinks if E log|1 − η h| < 0. For h of 0.5 or 1.5 that is at η < 8/3:

    >>> factor = fluctuation_factor(np.eye(1), np.array([[[0.5]], [[-0.5]]]), batch=1)
    >>> round(2 * factor, 1)
    2.7
    """
    values, vectors = np.linalg.eigh(mean)
    kept = values > _SMALLEST * values[-1]
    if not (values[-1] > 0 and deviations.any()):
        return 1.0
    own, turn = values[kept] / values[-1], vectors[:, kept]
    curvature, fluctuating = np.diag(own), (turn.T @ deviations @ turn) / values[-1]
    of_squares = _mean_square_factor(own, (fluctuating**2).mean(axis=0) / batch, momentum, nesterov)
    if of_squares > _CLOSE:
        return of_squares
    generator = np.random.default_rng(0)
    batches = curvature + np.tensordot(_shares(generator, batch, len(deviations)), fluctuating, 1)
    start = generator.normal(size=(_CHAINS, len(curvature), 1))

    def growth(rates: Matrix) -> Matrix:
        return _growth(batches, start, rates * limit_of_rate(momentum, nesterov), momentum, nesterov)

    low, high = 2.0**-5, 2.0
    while (grown := growth(rates := np.geomspace(low, high, 10)))[0] > 0 and low > 1 / _WIDEST:
        low, high = low / 2**6, low
    while grown[-1] <= 0 and high < _WIDEST:
        low, high = high, high * 2**6
        grown = growth(rates := np.geomspace(low, high, 10))
    above = max(1, int(np.argmax(grown > 0)))
    grown = growth(rates := np.geomspace(rates[above - 1], rates[above], 8))
    above = max(1, int(np.argmax(grown > 0)))
    pair = slice(above - 1, above + 1)
    return float(np.exp(np.interp(0.0, grown[pair], np.log(rates[pair]))))


def _mean_square_factor(curvature: Vector, variance: Matrix, momentum: float, nesterov: bool) -> float:
    """Return the ratio of limits for the growth of E x², by second moments along the modes; 0 if it is below `_CLOSE`.

    They depend on each other as pᵢ ← η² f(η λᵢ) Σⱼ E[Dᵢⱼ²] pⱼ / n, with f of `resting_variance`; at the limit, the
    largest eigenvalue of that map is 1.
    """

    def grows(factor: float) -> bool:
        rate = factor * limit_of_rate(momentum, nesterov)
        response = resting_variance(rate * curvature, momentum, nesterov)[0]
        return bool(np.abs(np.linalg.eigvals(rate**2 * response[:, None] * variance)).max() > 1)

    low, high = _CLOSE, 1.0
    if grows(low):
        return 0.0
    while high - low > 0.005:
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return low


def _shares(generator: np.random.Generator, batch: int, examples: int) -> Matrix:
    """Return the share that each example has in each batch."""
    count = _STEPS * _CHAINS
    if batch > 8 * examples:
        drawn = generator.multinomial(batch, np.full(examples, 1 / examples), count)
    else:  # is faster in this way
        first = examples * np.arange(count)[:, None]
        drawn = np.bincount((first + generator.integers(examples, size=(count, batch))).ravel(), None, count * examples)
    return drawn.reshape(_STEPS, _CHAINS, examples) / batch


def _growth(batches: Matrix, start: Matrix, rates: Matrix, momentum: float, nesterov: bool) -> Matrix:
    """Return the mean logarithmic growth in a step for each rate."""
    x = np.repeat(start, len(rates), axis=2)
    velocity, total = np.zeros_like(x), np.zeros(len(rates))
    for step, curvature in enumerate(batches, start=1):
        gradient = curvature @ x
        velocity = momentum * velocity + gradient
        x = x - rates * (gradient + momentum * velocity if nesterov else velocity)
        if step % _RESCALED == 0:
            size = np.sqrt((x**2 + (rates * velocity) ** 2).sum(axis=1, keepdims=True))
            x, velocity = x / size, velocity / size
            if step > _BURN_IN:
                total += np.log(size).mean(axis=0)[0]
    return total / (len(batches) - _BURN_IN)
