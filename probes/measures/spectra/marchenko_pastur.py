"""Singular values that stand out from the spectrum of random entries."""

from __future__ import annotations

import math

import numpy as np

from wtdiag.probes.measures.spectra.singular_values import SIDES, Spectrum
from wtdiag.probes.registry import probe


def _edge(norm: float, rows: int, columns: int, blocks: int) -> float:
    if not rows * columns * blocks:
        return math.nan
    return norm * (1 / math.sqrt(rows * blocks) + 1 / math.sqrt(columns * blocks))


@probe(
    units="1",
    long_name="Marchenko-Pastur edge of the {side} weights",
    equation="s (√out + √in), s² = mean of W²; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Marchenko and Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994",
    sides=SIDES,
    subject="{side}",
    scale="log",
    homogeneity=1,
)
def marchenko_pastur_edge(spectrum: Spectrum) -> float:
    """Largest singular value of a large matrix of independent entries whose mean square is that of the weights.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_marchenko_pastur_edge"](forward=np.ones((4, 9)))
    5.0
    """
    return _edge(spectrum.norm, spectrum.rows, spectrum.columns, spectrum.blocks)


def _outliers_null(spectrum: Spectrum) -> tuple[float, float]:
    if not spectrum.values.size:
        return math.nan, math.nan
    counts = (spectrum.random > _edge(1.0, spectrum.rows, spectrum.columns, spectrum.blocks)).sum(axis=1)
    return float(counts.mean()), float(counts.std())


@probe(
    units="1",
    long_name="number of outliers of the {side} weights",
    equation="#{i: σᵢ > s (√out + √in)}; convolutions unfolded to (out, in·kh·kw), per group",
    reference="Martin and Mahoney 2021, arXiv:1810.01075",
    null=_outliers_null,
    sides=SIDES,
    subject="{side}",
)
def outliers(spectrum: Spectrum, marchenko_pastur_edge: float) -> float:
    """Count of the singular values above the Marchenko-Pastur edge. By chance: that of a matrix of this finite size.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_outliers"](forward=np.ones((4, 9)))
    1.0
    """
    if not spectrum.nonzero.size:
        return math.nan
    return float(np.count_nonzero(spectrum.nonzero > marchenko_pastur_edge))
