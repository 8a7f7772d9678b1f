"""Results of the trials of a sweep, as one labelled dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import xarray as xr
from optuna.trial import FrozenTrial, TrialState

from wtdiag.studies.file.space import Range, Space
from wtdiag.studies.parts.dataset import texts
from wtdiag.studies.parts.search import Search, status_of

_MEASURED = {
    "validation_accuracy": ("1", "accuracy at the last step on held-out training examples"),
    "steps": ("1", "training steps taken"),
    "seconds": ("s", "time of the training steps"),
    "step_size_number": ("1", "largest step-size number of all layers before step 1"),
    "log_gain": ("1", "predicted log gain through all layers before step 1"),
}


def dataset(searches: Sequence[Search], ranges: Mapping[str, Range]) -> xr.Dataset:
    """Return all trials of some searches over (rule, trial), and the importance of the parameters.

    Parameters
    ----------
    searches
        One search for each method.
    ranges
        All parameters that are searched, with their ranges.
    """
    trials = {search.label: search.all() for search in searches}
    count = max(max(search.trials, len(trials[search.label])) for search in searches)
    shape, dims = (len(trials), count), ("rule", "trial")
    results = xr.Dataset(coords={"rule": list(trials), "trial": np.arange(count), "parameter": list(ranges)})
    for name, (units, long_name) in _MEASURED.items():
        results[name] = dims, np.full(shape, math.nan), {"units": units, "long_name": long_name}
    for name, searched in ranges.items():
        words = any(isinstance(choice, str) for choice in searched.choices)  # then numbers among them are texts too
        results[name] = dims, texts(shape) if words else np.full(shape, math.nan), {"long_name": name}
    results["status"], results["reason"] = (dims, texts(shape, "absent")), (dims, texts(shape))
    about = {"units": "1", "long_name": "share of the variance of the accuracy (fANOVA)"}
    results["importance"] = ("rule", "parameter"), np.full((len(trials), len(ranges)), math.nan), about
    for row, search in enumerate(searches):
        results["status"].values[row, : search.trials] = "pending"
        for trial in trials[search.label]:
            for name, value in _values(trial).items():
                values = results[name].values
                values[row, trial.number] = str(value) if values.dtype == object else value
        for name, share in importances(trials[search.label], search.space).items():
            results["importance"].values[row, list(ranges).index(name)] = share
    return results


def _values(trial: FrozenTrial) -> dict[str, Any]:
    """Return the known values of a trial, by the name of the variable."""
    attrs = trial.user_attrs
    measured = {name: attrs.get(name) for name in ("steps", "seconds")}
    measured |= {name: attrs.get(f"initial_{name}") for name in ("step_size_number", "log_gain")}
    measured["validation_accuracy"] = trial.value if trial.state == TrialState.COMPLETE else None
    known = {name: value for name, value in measured.items() if value is not None}
    return {**trial.params, **known, "status": status_of(trial), "reason": str(attrs.get("reason", ""))}


def importances(trials: Sequence[FrozenTrial], space: Space) -> dict[str, float]:
    """Return the share of each parameter in the variance of the accuracy, by fANOVA; NaN for fewer than four trials.

    Functional ANOVA (Hutter et al. 2014) measures what decides the accuracy over the whole space, so a coefficient that
    makes runs diverge, which then answer at chance, is important. PED-ANOVA, the default of Optuna, measures what
    separates the best tenth from the rest, and with fewer than twenty trials gives all parameters the same importance.
    Pruned and failed trials have no accuracy and are left out.

    References
    ----------
    Hutter, Hoos and Leyton-Brown 2014, An efficient approach for assessing hyperparameter importance, ICML.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    unknown = dict.fromkeys(space, math.nan)
    if len(complete) < 4 or len({trial.value for trial in complete}) == 1:
        return unknown
    # A study of its own in memory, because evaluators take parameters from all trials of a study.
    study = optuna.create_study(direction="maximize")
    study.add_trials(complete)
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    except RuntimeError:  # no tree of the forest found any variance
        return unknown
