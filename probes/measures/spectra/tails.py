"""Power laws in the tails of the weights' spectra."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.nulls import random_spectra
from wtdiag.probes.measures.spectra.singular_values import SIDES, Spectrum
from wtdiag.probes.registry import probe, shared

_CHECKPOINTS = np.linspace(0, 1, 17)


@dataclass(frozen=True)
class PowerLaw:
    """A tail λ ≥ xmin with density ∝ λ^-alpha.

    Attributes
    ----------
    alpha : float
        Exponent.
    distance : float
        Kolmogorov-Smirnov distance between the tail and the law.
    xmin : float
        Value at which the tail begins.
    n : float
        Number of values in the tail.
    """

    alpha: float
    distance: float
    xmin: float
    n: float


_NONE = PowerLaw(math.nan, math.nan, math.nan, math.nan)


def fit_power_law(logarithms: NDArray[np.float64]) -> PowerLaw:
    """Fit a power law to the tail of the values with these logarithms.

    Each value except the largest is tried as xmin, with alpha = 1 + n / Σ ln(λᵢ / xmin) over the n values λᵢ ≥ xmin.
    The fit is the law with the smallest distance D = maxᵢ |1 − (λᵢ / xmin)^(1 − alpha) − i / n|, i = 0, ..., n − 1, as
    in the authors' code; of two equal distances, the smaller xmin wins. D at a few values of a tail bounds D from
    below, so most tails need not be searched, and the result is still that of a search over all.

    Parameters
    ----------
    logarithms
        ln λ, in any order. With fewer than two different values there is no tail, and all fields are NaN.

    References
    ----------
    Clauset, Shalizi and Newman 2009, arXiv:0706.1062, equations 3.1 and 3.9

    Examples
    --------
    >>> law = fit_power_law(-np.log((np.arange(1000) + 0.5) / 1000) / 1.5)  # quantiles of density ∝ λ^-2.5
    >>> round(law.alpha, 1), law.n > 900
    (2.5, True)
    """
    x = np.sort(logarithms)
    size = x.size
    if size < 2:
        return _NONE
    gaps = np.diff(x)
    # Σ (xⱼ − xᵢ) over j ≥ i, from the top down, without cancellation
    excess = np.cumsum((gaps * np.arange(size - 1, 0, -1))[::-1])[::-1]
    starts = np.flatnonzero(np.concatenate([[True], gaps[:-1] > 0]) & (excess > 0))
    if not starts.size:
        return _NONE
    counts = size - starts
    slopes = counts / excess[starts]
    points = (_CHECKPOINTS * (counts[:, None] - 1)).astype(np.intp)
    rises = x[starts[:, None] + points] - x[starts][:, None]
    bounds = np.abs(-np.expm1(-slopes[:, None] * rises) - points / counts[:, None]).max(axis=1)
    best, distance = -1, math.inf
    for i in np.argsort(bounds, kind="stable"):
        if bounds[i] > distance:
            break
        tail = x[starts[i] :] - x[starts[i]]
        tried = float(np.abs(-np.expm1(-slopes[i] * tail) - np.arange(tail.size) / tail.size).max())
        if tried < distance or (tried == distance and i < best):
            best, distance = int(i), tried
    with np.errstate(all="ignore"):
        xmin = float(np.exp(x[starts[best]]))
    return PowerLaw(1 + float(slopes[best]), distance, xmin, float(counts[best]))


def _fit(spectrum: Spectrum) -> PowerLaw:
    values = spectrum.nonzero
    if not values.size:
        return _NONE
    law = fit_power_law(2 * np.log(values / values[0]))
    with np.errstate(all="ignore"):
        xmin = law.xmin * float(values[0] * values[0])
    return PowerLaw(law.alpha, law.distance, xmin if 0 < xmin < math.inf else math.nan, law.n)


@shared
def forward_tail(forward_spectrum: Spectrum) -> PowerLaw:
    """Power law of W's tail."""
    return _fit(forward_spectrum)


@shared
def feedback_tail(feedback_spectrum: Spectrum) -> PowerLaw:
    """Power law of B's tail."""
    return _fit(feedback_spectrum)


@lru_cache(maxsize=256)
def _random_tails(rows: int, columns: int, blocks: int) -> tuple[tuple[float, float], ...]:
    """Return mean and standard deviation of each field of the laws fitted to Gaussian matrices of norm 1."""
    with np.errstate(divide="ignore"):
        logarithms = 2 * np.log(random_spectra(rows, columns, blocks))
    laws = np.array([astuple(fit_power_law(draw[np.isfinite(draw)])) for draw in logarithms])
    if not np.isfinite(laws).all():
        return ((math.nan, math.nan),) * 4
    return tuple((float(column.mean()), float(column.std())) for column in laws.T)


def _null(spectrum: Spectrum, field: int) -> tuple[float, float]:
    return _random_tails(*sorted((spectrum.rows, spectrum.columns)), spectrum.blocks)[field]


def _xmin_null(spectrum: Spectrum) -> tuple[float, float]:
    mean, sd = _null(spectrum, 2)
    square = spectrum.norm * spectrum.norm
    return (mean * square, sd * square) if square < math.inf else (math.nan, math.nan)


_LAW = "density ∝ λ^−α of λ = σ² ≥ λₘᵢₙ"
_ABOUT: dict[str, Any] = {
    "reference": "Clauset, Shalizi and Newman 2009, arXiv:0706.1062",
    "sides": SIDES,
    "units": "1",
    "subject": "{side}",
}


@probe(
    long_name="power-law exponent of the tail of the {side} weights' spectrum",
    equation=f"α = 1 + n / Σ ln(λᵢ / λₘᵢₙ), {_LAW}",
    null=lambda spectrum: _null(spectrum, 0),
    **_ABOUT,
    bounds=(1, math.inf),
)
def power_law_alpha(tail: PowerLaw) -> float:
    """Exponent of the tail of WWᵀ's eigenvalues λ: 2 to 4 is called heavy-tailed, and random entries have more.

    A fit to few values means little, so look at n and at the distance too. The measure is that of Martin and Mahoney
    2021, arXiv:1810.01075; convolutions are unfolded to (out, in·kh·kw), per group.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> weight = np.diag(np.arange(1, 101) ** -0.5)  # λ = 1 / rank, Zipf's law
    >>> round(PROBES["forward_power_law_alpha"](forward=weight), 1)
    2.0
    """
    return tail.alpha


@probe(
    long_name="Kolmogorov-Smirnov distance between the tail of the {side} weights' spectrum and its power law",
    equation=f"D = maxᵢ |F(λᵢ) − i/n|, {_LAW}",
    null=lambda spectrum: _null(spectrum, 1),
    **_ABOUT,
    bounds=(0, 1),
)
def power_law_distance(tail: PowerLaw) -> float:
    """Largest difference between the cumulative shares of the tail and of the fitted law.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_power_law_distance"](forward=np.diag(np.arange(1, 101) ** -0.5)) < 0.03
    True
    """
    return tail.distance


@probe(
    long_name="eigenvalue at which the power-law tail of the {side} weights' spectrum begins",
    equation=f"λₘᵢₙ = argmin D, {_LAW}",
    null=_xmin_null,
    **_ABOUT,
    scale="log",
    homogeneity=2,
)
def power_law_xmin(tail: PowerLaw) -> float:
    """Smallest eigenvalue λ = σ² of the tail, in squared weights.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> 0.0099 < PROBES["forward_power_law_xmin"](forward=np.diag(np.arange(1, 101) ** -0.5)) < 0.05
    True
    """
    return tail.xmin


@probe(
    long_name="number of eigenvalues in the power-law tail of the {side} weights' spectrum",
    equation=f"n = #{{i: λᵢ ≥ λₘᵢₙ}}, {_LAW}",
    null=lambda spectrum: _null(spectrum, 3),
    **_ABOUT,
)
def power_law_n(tail: PowerLaw) -> float:
    """Count of the eigenvalues in the tail.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_power_law_n"](forward=np.diag([1.0, 2.0, 4.0]))
    3.0
    """
    return tail.n
