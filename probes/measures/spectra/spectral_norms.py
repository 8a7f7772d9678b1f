"""Singular values of the weights, and the norms that follow from them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.measures.spectra.singular_values import SIDES, Spectrum
from wtdiag.probes.registry import probe


def _singular_values_null(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return spectrum.norm * spectrum.random.mean(axis=0), spectrum.norm * spectrum.random.std(axis=0)


@probe(
    units="1",
    long_name="singular values of the {side} weights",
    equation="σ₁ ≥ σ₂ ≥ …; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Golub and Van Loan 2013, Matrix Computations, section 2.4",
    null=_singular_values_null,
    dims=("mode",),
    sides=SIDES,
    subject="{side}",
    scale="log",
    homogeneity=1,
)
def singular_values(spectrum: Spectrum) -> NDArray[np.float64]:
    """All singular values, descending. By chance: those of a Gaussian matrix of equal shape and norm.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_singular_values"](forward=np.array([[3.0, 0.0], [0.0, -4.0]]))
    array([4., 3.])
    """
    return spectrum.values


def _spectral_norm_null(spectrum: Spectrum) -> tuple[float, float]:
    mean, sd = _singular_values_null(spectrum)
    return (float(mean[0]), float(sd[0])) if mean.size else (math.nan, math.nan)


@probe(
    units="1",
    long_name="spectral norm of the {side} weights",
    equation="σ₁; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Golub and Van Loan 2013, Matrix Computations, section 2.3",
    null=_spectral_norm_null,
    sides=SIDES,
    subject="{side}",
    scale="log",
    homogeneity=1,
)
def spectral_norm(spectrum: Spectrum) -> float:
    """Largest singular value.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["feedback_spectral_norm"](feedback=np.array([[3.0, 0.0], [0.0, -4.0]]))
    4.0
    """
    return float(spectrum.values[0]) if spectrum.values.size else math.nan


def _nuclear_norm_null(spectrum: Spectrum) -> tuple[float, float]:
    if not spectrum.values.size:
        return math.nan, math.nan
    sums = spectrum.random.sum(axis=1)
    return spectrum.norm * float(sums.mean()), spectrum.norm * float(sums.std())


@probe(
    units="1",
    long_name="nuclear norm of the {side} weights",
    equation="Σ σᵢ; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Fazel 2002, Matrix Rank Minimization with Applications, PhD thesis, Stanford",
    null=_nuclear_norm_null,
    sides=SIDES,
    subject="{side}",
    scale="log",
    homogeneity=1,
)
def nuclear_norm(spectrum: Spectrum) -> float:
    """Sum of the singular values.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_nuclear_norm"](forward=np.array([[3.0, 0.0], [0.0, -4.0]]))
    7.0
    """
    with np.errstate(all="ignore"):
        total = float(spectrum.values.sum()) if spectrum.values.size else math.nan
    return total if math.isfinite(total) else math.nan
