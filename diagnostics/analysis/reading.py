"""What the variables of an analysis mean, also of an analysis that an earlier version wrote without saying so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.costs import COSTS
from wtdiag.diagnostics.analysis.derive import DERIVED
from wtdiag.diagnostics.analysis.layout import NULLS, carrying, measures
from wtdiag.probes import PROBES, Measure
from wtdiag.probes.measure import from_attrs

# For analyses of earlier versions: the present names of variables, and the rules whose feedback does not learn.
_FORMER = {"log_gain_sum": "log_norm_ratio_sum"}
_FIXED = frozenset({"bp", "brsf", "dfa", "drtp", "fa", "frsf", "usf"})


def known() -> Mapping[str, Measure]:
    """Return all measures that an analysis can hold, by name: probes, derived measures and costs."""
    return {**PROBES, **DERIVED, **COSTS}


def measure_of(name: str) -> str:
    """Return the name of the measure whose chance level a variable holds, or else the name of the variable.

    Examples
    --------
    >>> measure_of("weight_angle_null_sd"), measure_of("norm_ratio")
    ('weight_angle', 'norm_ratio')
    """
    return next((name.removesuffix(end) for end in NULLS if name.endswith(end)), name)


def about(variable: xr.DataArray) -> Measure:
    """Return the description of a variable of an analysis: that in its attributes, or else its definition.

    Examples
    --------
    >>> about(xr.DataArray(0.0, name="weight_angle")).neutral
    90
    """
    return from_attrs(str(variable.name), variable.attrs, known().get(str(variable.name)))


def complete(analysis: xr.Dataset) -> xr.Dataset:
    """Return an analysis with all that the present version writes, whichever version wrote it."""
    analysis = analysis.rename({old: new for old, new in _FORMER.items() if old in analysis and new not in analysis})
    names = [name for name in measures(analysis) if name in known()]
    analysis = analysis.assign({name: analysis[name].assign_attrs(about(analysis[name]).attrs) for name in names})
    if "fixed" in analysis.coords:
        return analysis
    fixed = [_rule(analysis, str(name)) in _FIXED for name in analysis.layer.values]
    return analysis.assign_coords(fixed=("layer", fixed))


def meaningful(analysis: xr.Dataset, measure: str) -> NDArray[np.bool_]:
    """Return the layers in which a measure is meaningful: those that carry error, if it is about feedback, or all."""
    if about(analysis[measure]).subject == "feedback":
        return carrying(analysis)
    return np.ones(analysis.sizes["layer"], dtype=bool)


def predictions(analysis: xr.Dataset) -> dict[str, str]:
    """Return by measure the variable of an analysis that predicts its value at the feedback's fixed point."""
    predicting = {about(analysis[name]).predicts: name for name in measures(analysis)}
    order = dict.fromkeys([*map(str, analysis.data_vars), *predicting])
    return {name: predicting[name] for name in order if name and name in predicting}


def _rule(analysis: xr.Dataset, layer: str) -> str:
    """Return the name of a layer's rule, from the attributes."""
    name = analysis.attrs.get("rule")
    if name != "mixed":
        return str(name)
    try:
        coefficients: Any = json.loads(analysis.attrs["rule_coefficients"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ""
    match coefficients:
        case {"layers": {**layers}} if isinstance(rule := layers.get(layer), dict):
            return str(rule.get("name"))
    return ""
