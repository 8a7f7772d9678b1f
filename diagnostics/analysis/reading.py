"""What an analysis says of its measures, what they mean and where; and what analyses of former days leave out."""

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

# Of analyses that do not say so themselves yet: a variable's present name, and rules whose feedback does not learn.
_FORMER = {"log_gain_sum": "log_norm_ratio_sum"}
_FIXED = frozenset({"bp", "brsf", "dfa", "drtp", "fa", "frsf", "usf"})


def known() -> Mapping[str, Measure]:
    """Return all measures that an analysis can hold, by name: probes, what is derived from them, and costs."""
    return {**PROBES, **DERIVED, **COSTS}


def measure_of(name: str) -> str:
    """Return the measure whose null expectation a variable is, or else the variable itself.

    Examples
    --------
    >>> measure_of("weight_angle_null_sd"), measure_of("norm_ratio")
    ('weight_angle', 'norm_ratio')
    """
    return next((name.removesuffix(end) for end in NULLS if name.endswith(end)), name)


def about(variable: xr.DataArray) -> Measure:
    """Return what is known of a variable of an analysis: as its attributes say, or else as it is defined.

    Examples
    --------
    >>> about(xr.DataArray(0.0, name="weight_angle")).neutral
    90
    """
    return from_attrs(str(variable.name), variable.attrs, known().get(str(variable.name)))


def complete(analysis: xr.Dataset) -> xr.Dataset:
    """Return an analysis that says what those of today say, whenever it was made."""
    analysis = analysis.rename({old: new for old, new in _FORMER.items() if old in analysis and new not in analysis})
    names = [name for name in measures(analysis) if name in known()]
    analysis = analysis.assign({name: analysis[name].assign_attrs(about(analysis[name]).attrs) for name in names})
    if "fixed" in analysis.coords:
        return analysis
    fixed = [_rule(analysis, str(name)) in _FIXED for name in analysis.layer.values]
    return analysis.assign_coords(fixed=("layer", fixed))


def meaningful(analysis: xr.Dataset, measure: str) -> NDArray[np.bool_]:
    """In which layers a measure means something: where it is about feedback, in those that carry error."""
    if about(analysis[measure]).subject == "feedback":
        return carrying(analysis)
    return np.ones(analysis.sizes["layer"], dtype=bool)


def predictions(analysis: xr.Dataset) -> dict[str, str]:
    """Return by measure the variable of an analysis that tells its value at the feedback's fixed point."""
    found = {about(analysis[name]).predicts: name for name in measures(analysis)}
    order = dict.fromkeys([*map(str, analysis.data_vars), *found])
    return {name: found[name] for name in order if name and name in found}


def _rule(analysis: xr.Dataset, layer: str) -> str:
    """Name the rule of a layer, as the attributes tell it."""
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
