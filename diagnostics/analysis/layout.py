"""How an analysis is laid out: which of its variables are measures, and what its coordinates say of the layers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

NULLS = ("_null", "_null_sd")
"""Ends of the names of variables that tell what a measure is by chance."""


def measures(analysis: xr.Dataset) -> list[str]:
    """Names of the measures in an analysis, without their null expectations."""
    return [str(name) for name in analysis.data_vars if not str(name).endswith(NULLS)]


def flag(analysis: xr.Dataset, name: str, *, default: bool = False) -> NDArray[np.bool_]:
    """Return one truth per layer, as a coordinate says; ``default`` where the analysis does not say."""
    coordinate = analysis.coords.get(name)
    if coordinate is None or coordinate.dims != ("layer",) or coordinate.dtype.kind not in "biu":
        return np.full(analysis.sizes["layer"], default)
    return np.asarray(coordinate.values).astype(bool)


def carrying(analysis: xr.Dataset) -> NDArray[np.bool_]:
    """Which layers carry error: all, where the analysis does not say."""
    return flag(analysis, "carries_error", default=True)


def last_measured(analysis: xr.Dataset) -> int:
    """Index of the last snapshot with any finite measure, or of the last one: a diverged run ends in NaN."""
    finite = np.zeros(analysis.sizes["step"], dtype=bool)
    for name in measures(analysis):
        measure = analysis[name]
        if "step" in measure.dims and measure.dtype.kind == "f":
            finite |= np.isfinite(measure.transpose("step", ...).values).reshape(len(finite), -1).any(axis=1)
    return int(np.flatnonzero(finite)[-1]) if finite.any() else len(finite) - 1
