"""The layout of an analysis: which variables are measures, and what the coordinates say about the layers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

NULLS = ("_null", "_null_sd")
"""Endings of the names of variables that hold the chance level of a measure."""


def measures(analysis: xr.Dataset) -> list[str]:
    """Return the names of the measures in an analysis, without their chance levels."""
    return [str(name) for name in analysis.data_vars if not str(name).endswith(NULLS)]


def flag(analysis: xr.Dataset, name: str, *, default: bool = False) -> NDArray[np.bool_]:
    """Return the boolean coordinate of the layers with this name; ``default`` if the analysis has none."""
    coordinate = analysis.coords.get(name)
    if coordinate is None or coordinate.dims != ("layer",) or coordinate.dtype.kind not in "biu":
        return np.full(analysis.sizes["layer"], default)
    return np.asarray(coordinate.values).astype(bool)


def carrying(analysis: xr.Dataset) -> NDArray[np.bool_]:
    """Return which layers carry error; all of them if the analysis does not say."""
    return flag(analysis, "carries_error", default=True)


def last_measured(analysis: xr.Dataset) -> int:
    """Return the index of the last snapshot with a finite measure, as a diverged run ends in NaN; else of the last."""
    finite = np.zeros(analysis.sizes["step"], dtype=bool)
    for name in measures(analysis):
        measure = analysis.variables[name]  # without coordinates, which would cost much in a report
        if "step" in measure.dims and measure.dtype.kind == "f":
            others = tuple(axis for axis, dim in enumerate(measure.dims) if dim != "step")
            finite |= np.isfinite(measure.values).any(axis=others)
    return int(np.flatnonzero(finite)[-1]) if finite.any() else len(finite) - 1
