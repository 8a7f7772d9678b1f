"""Ranks of the weights that rounding cannot change: over how many directions the weights spread."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.measures.spectra.singular_values import SIDES, Spectrum
from wtdiag.probes.registry import probe


def _null(spectrum: Spectrum, ranks: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> tuple[float, float]:
    if not spectrum.values.size:
        return math.nan, math.nan
    drawn = ranks(spectrum.random)
    return float(drawn.mean()), float(drawn.std())


@probe(
    units="1",
    long_name="stable rank of the {side} weights",
    equation="Σ σᵢ² / σ₁²; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Rudelson and Vershynin 2007, arXiv:math/0503442",
    null=lambda spectrum: _null(spectrum, lambda drawn: drawn[:, 0] ** -2),
    sides=SIDES,
    subject="{side}",
    bounds=(1, math.inf),
)
def stable_rank(spectrum: Spectrum) -> float:
    """Squared Frobenius norm over squared spectral norm: 1 for rank one, the rank for equal singular values.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_stable_rank"](forward=np.eye(3))
    3.0
    """
    if not spectrum.values.size or not spectrum.values[0] > 0:
        return math.nan
    return float(np.sum((spectrum.values / spectrum.values[0]) ** 2))


def _effective_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = values / values.sum(axis=-1, keepdims=True)
    return np.asarray(np.exp(-np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=-1)))


@probe(
    units="1",
    long_name="effective rank of the {side} weights",
    equation="exp(−Σ pᵢ ln pᵢ), pᵢ = σᵢ / Σ σ; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Roy and Vetterli 2007, The effective rank, EUSIPCO",
    null=lambda spectrum: _null(spectrum, _effective_ranks),
    sides=SIDES,
    subject="{side}",
    bounds=(1, math.inf),
)
def effective_rank(spectrum: Spectrum) -> float:
    """Exponential of the entropy of the singular values' shares: 1 for rank one, the rank for equal values.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> round(PROBES["forward_effective_rank"](forward=np.eye(3)), 12)
    3.0
    """
    values = spectrum.nonzero
    return float(_effective_ranks(values / values[0])) if values.size else math.nan


def _participation_ratios(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sum(values**2, axis=-1) ** 2 / np.sum(values**4, axis=-1))


@probe(
    units="1",
    long_name="participation ratio of the {side} weights",
    equation="(Σ σᵢ²)² / Σ σᵢ⁴; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Gao et al. 2017, bioRxiv 214262",
    null=lambda spectrum: _null(spectrum, _participation_ratios),
    sides=SIDES,
    subject="{side}",
    bounds=(1, math.inf),
)
def participation_ratio(spectrum: Spectrum) -> float:
    """Effective number of eigenvalues of WWᵀ: 1 for rank one, the rank for equal singular values.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_participation_ratio"](forward=np.eye(3))
    3.0
    """
    values = spectrum.nonzero
    return float(_participation_ratios(values / values[0])) if values.size else math.nan


def _condition_number_null(spectrum: Spectrum) -> tuple[float, float]:
    if not spectrum.values.size:
        return math.nan, math.nan
    logarithms = np.log(spectrum.random[:, 0] / spectrum.random[:, -1])
    return float(np.exp(np.median(logarithms))), float(logarithms.std())


@probe(
    units="1",
    long_name="condition number of the {side} weights",
    equation="σ₁ / σₘᵢₙ; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Edelman 1988, doi:10.1137/0609045",
    null=_condition_number_null,
    sides=SIDES,
    subject="{side}",
    bounds=(1, math.inf),
    scale="log",
)
def condition_number(spectrum: Spectrum) -> float:
    """Largest singular value over the smallest; NaN without full rank.

    By chance: the median, and the standard deviation of the logarithm, because a square Gaussian matrix has no mean.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["feedback_condition_number"](feedback=np.array([[3.0, 0.0], [0.0, -6.0]]))
    2.0
    """
    values = spectrum.nonzero
    full = 0 < values.size == spectrum.values.size
    return float(values[0] / values[-1]) if full else math.nan
