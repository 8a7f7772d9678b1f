"""Final angles of an analysed run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.analyze import read_analysis
from wtdiag.diagnostics.analysis.layout import carrying
from wtdiag.probes.records.schema import ANALYSIS


def angles(run: Path) -> dict[str, float]:
    """Return the angles of an analysed run at its last snapshot that has them, in degrees; NaN if no snapshot has them.

    ``weight_angle`` is the mean over the layers that carry error, ``error_angle`` that of the first layer.

    Raises
    ------
    InputError
        If the analysis cannot be read.
    """
    analysis = read_analysis(run / ANALYSIS, ("weight_angle", "error_angle"))
    return {
        "weight_angle": _last(analysis, "weight_angle", carrying(analysis)),
        "error_angle": _last(analysis, "error_angle", slice(1)),
    }


def _last(analysis: xr.Dataset, name: str, layers: NDArray[np.bool_] | slice) -> float:
    """Return the mean of a measure over some layers, at the last snapshot at which one of them has it."""
    if name not in analysis:
        return math.nan
    values = analysis[name].transpose("step", "layer").values[:, layers]
    there = np.isfinite(values)
    steps = np.flatnonzero(there.any(axis=1))
    return float(values[steps[-1]][there[steps[-1]]].mean()) if len(steps) else math.nan
