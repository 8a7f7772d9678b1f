"""Predicted and observed instability, layer by layer: what the step-size number says, and what happened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wtdiag.diagnostics.analysis.view import Floats, Mask, View
from wtdiag.diagnostics.findings.thresholds import limit

SAFE = 0.4
"""The step-size number that a recommended rate leads to: S grows in the course of training."""


def stability(analysis: xr.Dataset, config: Mapping[str, Any], metrics: pd.DataFrame) -> pd.DataFrame:
    """Return a table that compares the predicted and the observed loss of stability of each layer.

    Parameters
    ----------
    analysis, config, metrics
        As `diagnostics.analysis.analyze` returns it, and the run's ``config`` and ``metrics``.

    Returns
    -------
    DataFrame
        One row per layer, with times in training steps, and NaN for what did not happen or is not known:

        - ``step_size_number``: the largest finite S before the run broke, because later values mean nothing; a rule's
          step on B is unstable above 1.
        - ``unstable_step``: the first snapshot with S > 1.
        - ``warning_step``: the first snapshot with S > 1 or a predicted gain ten times its first.
        - ``runaway_step``: the first snapshot in which |B| or |B| / |W| is ten times its first value, or not finite.
        - ``collapse_step``: when training broke for good (`View.collapse`); the same for all layers.
        - ``lead_time``: steps from the warning to the collapse.
        - ``largest_feedback_lr``: the smallest lr / S of the snapshots before the run broke; any larger rate makes
          S > 1 in one of them.
        - ``recommended_feedback_lr``: 0.4 of that rate, because S grows in the course of training.
        - ``growth``: the largest S over the first one, before the run broke.
        - ``largest_coefficient_scale``: 1 / S, the same limit as a factor on all of the rule's coefficients.

    Examples
    --------
    >>> values = {"step_size_number": [[0.5, 0.1], [2.0, 0.1]], "feedback_norm": [[1.0, 1.0], [50.0, 1.0]]}
    >>> variables = {name: (("step", "layer"), array) for name, array in values.items()}
    >>> analysis = xr.Dataset(variables, {"step": [0, 10], "layer": ["fc1", "fc2"]})
    >>> metrics = pd.DataFrame({"step": [1, 11], "feedback_lr": [0.5, 0.5]})
    >>> table = stability(analysis, {}, metrics)
    >>> table.loc["fc1", ["unstable_step", "runaway_step", "largest_feedback_lr"]].tolist()
    [10.0, 10.0, 0.25]
    """
    with np.errstate(all="ignore"):  # infinities need no warning: what is computed from them is infinite or NaN
        return of_view(View(analysis, config, metrics))


def of_view(view: View) -> pd.DataFrame:
    """Return the table of `stability` for a view."""
    number, gain = view["step_size_number"], view["predicted_gain"]
    unstable = number > limit("step_size_number")
    known = np.where(np.isfinite(number) & ~(view.steps >= view.collapse)[:, None], number, np.nan)
    worst = np.fmax.reduce(known, axis=0)
    safe = np.fmin.reduce(view.rates("feedback_lr")[:, None] / known, axis=0)
    warning = _first(view, unstable | _grown(gain, of_least=1.0))
    return pd.DataFrame(
        {
            "step_size_number": worst,
            "unstable_step": _first(view, unstable),
            "warning_step": warning,
            "runaway_step": _first(view, runaway(view)),
            "collapse_step": view.collapse,
            "lead_time": np.where(warning < view.collapse, view.collapse - warning, math.nan),
            "largest_feedback_lr": np.where(np.isfinite(safe), safe, math.nan),
            "recommended_feedback_lr": np.where(np.isfinite(safe), SAFE * safe, math.nan),
            "growth": _growth_of(known),
            "largest_coefficient_scale": 1 / worst,
        },
        index=pd.Index(view.layers, name="layer"),
    )


def _growth_of(known: Floats) -> Floats:
    """Return by layer the largest known S over the first that is positive."""
    positive = np.isfinite(known) & (known > 0)
    first = np.take_along_axis(known, positive.argmax(axis=0)[None], axis=0)[0]
    return np.where(positive.any(axis=0), np.fmax.reduce(known, axis=0) / first, math.nan)


def runaway(view: View) -> Mask:
    """Return by step and layer whether B or its norm ratio has grown tenfold, or B is no longer finite."""
    norm = view["feedback_norm"]
    was_finite = np.maximum.accumulate(np.isfinite(norm), axis=0)
    return _grown(norm) | _grown(view["norm_ratio"]) | (was_finite & ~np.isfinite(norm))


def _grown(values: Floats, of_least: float = 0.0) -> Mask:
    """Return by step and layer whether a measure exceeds `limit` ("runaway") times its first finite value."""
    finite = np.isfinite(values)
    first = np.take_along_axis(values, finite.argmax(axis=0)[None], axis=0)
    first = np.where(finite.any(axis=0) & (first > 0), first, math.inf if of_least == 0 else of_least)
    return np.asarray(values > limit("runaway") * np.maximum(first, of_least))


def _first(view: View, mask: Mask) -> Floats:
    """Return by layer the step of the first snapshot in which a condition holds, NaN where it never does."""
    return np.where(mask.any(axis=0), view.steps[mask.argmax(axis=0)], math.nan)
