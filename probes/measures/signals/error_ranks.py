"""Over how many directions the error signal of a layer spreads, under the rule and under exact backprop.

An error is a matrix with a row for each sample, that is, each example and position, and a column for each of the
layer's units. Its singular values over the square root of the number of samples are √λ(E[δ δᵀ]).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.kernels.moments import principal_sizes
from wtdiag.probes.kernels.nulls import random_spectra
from wtdiag.probes.registry import probe, shared

Array = NDArray[Any]

_RANK = "Roy and Vetterli 2007, The effective rank, EUSIPCO"
_EQUATION = "exp(−Σ pᵢ ln pᵢ), pᵢ = σᵢ / Σ σ, σ the singular values of {delta} as samples × units"


def _effective_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exponential of the entropy of the singular values' shares, over the last axis."""
    shares = values / values.sum(axis=-1, keepdims=True)
    return np.asarray(np.exp(-np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=-1)))


def _effective_rank(values: NDArray[np.float64]) -> float:
    if not values.size or not values[0] > 0 or math.isinf(values[0]):
        return math.nan
    return float(_effective_ranks(values / values[0]))


def _rank_null(errors: Array, units: int) -> tuple[float, float]:
    """Return mean and standard deviation of the effective rank of Gaussian errors of the same shape."""
    if not errors.size:
        return math.nan, math.nan
    width = errors.shape[units]
    drawn = _effective_ranks(random_spectra(errors.size // width, width))
    return float(drawn.mean()), float(drawn.std())


@shared
def error_modes(delta: Array, units: int = 1) -> NDArray[np.float64]:
    """Singular values of the error that trains the layer, over √samples."""
    return principal_sizes(delta, units)


@shared
def exact_error_modes(delta_exact: Array, units: int = 1) -> NDArray[np.float64]:
    """Singular values of the error of exact backpropagation, over √samples."""
    return principal_sizes(delta_exact, units)


@probe(
    units="1",
    long_name="singular values of the error that trains the layer",
    equation="√λ(E[δ δᵀ]) over examples and positions",
    reference=_RANK,
    dims=("mode",),
    subject="signal",
    scale="log",
    homogeneity=1,
)
def error_spectrum(error_modes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values of the error under the rule, descending: one for each unit, or for each sample if fewer.

    They are those of the matrix samples × units over the square root of the number of samples.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_spectrum"](delta=np.array([[2.0, 0.0], [0.0, 4.0]])).round(3)
    array([2.828, 1.414])
    """
    return error_modes


@probe(
    units="1",
    long_name="singular values of the error that exact backpropagation brings to the layer",
    equation="√λ(E[δ* δ*ᵀ]) over examples and positions",
    reference=_RANK,
    dims=("mode",),
    subject="signal",
    scale="log",
    homogeneity=1,
    label="exact error spectrum",
)
def error_spectrum_exact(exact_error_modes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Singular values of the error under exact backpropagation; see `error_spectrum`.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["error_spectrum_exact"](delta_exact=np.array([[2.0, 0.0], [0.0, 4.0]])).round(3)
    array([2.828, 1.414])
    """
    return exact_error_modes


@probe(
    units="1",
    long_name="effective rank of the error that trains the layer",
    equation=_EQUATION.format(delta="δ"),
    reference=_RANK,
    null=lambda delta, units=1: _rank_null(delta, units),
    subject="signal",
    bounds=(1, math.inf),
)
def error_effective_rank(error_modes: NDArray[np.float64]) -> float:
    """Exponential of the entropy of the shares of the error's singular values: 1 if all samples agree but for a factor.

    By chance: independent Gaussian errors, which spread over all directions that the shape has. The errors of a network
    with c classes come from c − 1 directions at the output, so even exact backpropagation stays far below that.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["error_effective_rank"](delta=np.eye(3)), 12)
    3.0
    """
    return _effective_rank(error_modes)


@probe(
    units="1",
    long_name="effective rank of the error that exact backpropagation brings to the layer",
    equation=_EQUATION.format(delta="δ*"),
    reference=_RANK,
    null=lambda delta_exact, units=1: _rank_null(delta_exact, units),
    subject="signal",
    bounds=(1, math.inf),
    label="exact error effective rank",
)
def error_effective_rank_exact(exact_error_modes: NDArray[np.float64]) -> float:
    """Effective rank of the error under exact backpropagation; see `error_effective_rank`.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["error_effective_rank_exact"](delta_exact=np.eye(3)), 12)
    3.0
    """
    return _effective_rank(exact_error_modes)


@probe(
    units="1",
    long_name="effective rank of the error that the layer sends on",
    equation=_EQUATION.format(delta="Bᵀδ"),
    reference=_RANK,
    null=lambda sent, units=1: _rank_null(sent, units),
    subject="feedback",
    bounds=(1, math.inf),
)
def sent_effective_rank(sent: Array, units: int = 1) -> float:
    """Effective rank of what B makes of the error, before the nonlinearity below hides it.

    Silent units alone give the error that arrives below a high rank. So it is here that a B shows which sends the same
    direction to all examples.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["sent_effective_rank"](sent=np.array([[1.0, 2.0], [-2.0, -4.0]]))
    1.0
    """
    return _effective_rank(principal_sizes(sent, units))


@probe(
    units="1",
    long_name="effective rank of the error that exact backpropagation sends on from the layer",
    equation=_EQUATION.format(delta="Wᵀδ*"),
    reference=_RANK,
    null=lambda sent_exact, units=1: _rank_null(sent_exact, units),
    subject="feedback",
    bounds=(1, math.inf),
    label="exact sent effective rank",
)
def sent_effective_rank_exact(sent_exact: Array, units: int = 1) -> float:
    """Effective rank of the error that backpropagation sends on; see `sent_effective_rank`.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["sent_effective_rank_exact"](sent_exact=np.eye(3)), 12)
    3.0
    """
    return _effective_rank(principal_sizes(sent_exact, units))
