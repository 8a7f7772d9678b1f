"""The predicted region of stability in a plane of two parameters, from the network before its first step."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from wtdiag.probes import PROBES
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.config import settings_with_role
from wtdiag.studies.file.plan import joined
from wtdiag.studies.file.space import SEARCHABLE, coefficients_of
from wtdiag.studies.predict.live_stability import Descent, Laws, Stability
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.primitives import PRIMITIVES

_DERIVED = "wtdiag: the linear recursion ∂B = H B − T of the rule at fixed W, see docs/theory.md"
_ATTRS = {
    "step_size_number": {
        "units": "1",
        "long_name": "predicted step-size number, the largest of all layers; unstable above 1",
        "equation": PROBES["step_size_number"].equation,
        "reference": _DERIVED,
    },
    "log_gain": {
        "units": "1",
        "long_name": "predicted log gain through all layers that carry error",
        "equation": "Σ log |⟨B*, W⟩ / ⟨W, W⟩|",
        "reference": _DERIVED,
    },
}


def predict(
    settings: Settings, parameters: tuple[str, str], values: tuple[Sequence[float], Sequence[float]]
) -> xr.Dataset:
    """Predict step-size number and gain for each pair of values of two parameters, without training.

    For each pair, the result equals `studies.predict.live_stability.stability` of a training with these settings before
    its first step: S = η / η*, where S = 1 is the predicted boundary of stability, and the log gain
    Σ log |⟨B*, W⟩ / ⟨W, W⟩| of the feedback at its fixed point B* = H⁻¹ T. The learning rate is that of the first step;
    for a rule whose feedback takes the steps of the forward weights (``kp``), the first of the warm-up.

    Parameters
    ----------
    settings
        All other settings, and the seed of the network.
    parameters
        Names of two settings, or coefficients of the rule.
    values
        The values of the first parameter, and those of the second.

    Returns
    -------
    Dataset
        ``step_size_number`` and ``log_gain``, both pure numbers, over the dims (map_x, map_y), whose coordinates are
        the values. NaN as for `studies.predict.live_stability.stability`.

    Raises
    ------
    InputError
        If a parameter is not known or given twice, has no values, or has one that cannot be used.

    References
    ----------
    The rules: Kunin et al. 2020, arXiv:2003.01513. The limit of stability: Polyak 1964,
    doi:10.1016/0041-5553(64)90137-5.

    Examples
    --------
    For symmetric alignment S = η decay / 2, and B rests at self / decay · W:

    >>> predicted = predict(Settings(rule="sa", depth=2), ("feedback_lr", "decay"), ([1.0, 10.0], [0.1, 0.2, 0.4]))
    >>> predicted.step_size_number.values.round(6)
    array([[0.05, 0.1 , 0.2 ],
           [0.5 , 1.  , 2.  ]])
    >>> np.exp(predicted.log_gain.sel(map_x=1.0)).values.round(6)
    array([2. , 1. , 0.5])
    """
    axes = _checked(settings, parameters, values)
    given, of_network = settings.as_dict(), _of_network(settings)
    network = cache(lambda *values: _Network(Settings(**joined(given, dict(values)))))
    predicted = np.full((len(_ATTRS), *map(len, axes)), np.nan)
    for (i, x), (j, y) in product(*map(enumerate, axes)):
        pair = list(zip(parameters, (x, y), strict=True))
        now = Settings(**joined(given, dict(pair)))
        predicted[:, i, j] = network(*(item for item in pair if item[0] in of_network)).stability(now)
    dims = "map_x", "map_y"
    return xr.Dataset(
        {name: (dims, each, attrs) for each, (name, attrs) in zip(predicted, _ATTRS.items(), strict=True)},
        {dim: (dim, axis, {"long_name": name}) for dim, axis, name in zip(dims, axes, parameters, strict=True)},
    )


class _Network:
    """A network before its first step, with a cache of its predictions.

    Coefficients of terms without B do not enter H, and S is linear in the learning rate, so results that many pairs
    share are computed once.
    """

    def __init__(self, settings: Settings) -> None:
        with tempfile.TemporaryDirectory() as folder:  # a training that has not begun writes nothing
            self._training = Training(settings, Path(folder, "run"))
        laws = Laws(self._training)
        self._step_size_number, self._log_gain = cache(laws.step_size_number), cache(laws.log_gain)

    def stability(self, settings: Settings) -> Stability:
        """Return the predicted stability for settings that make the same network."""
        training = self._training
        learner = Learner(training.model, settings, total=training.total, epoch=training.epoch)
        rule, descent = learner.rule_at(0), Descent.of(learner, 0)
        pulls = [name for name, primitive in PRIMITIVES.items() if primitive.pulls]
        curved = dataclasses.replace(rule, **{name: 0.0 for name in pulls if hasattr(rule, name)})
        unit = dataclasses.replace(descent, lr=float(descent.lr != 0))
        number = descent.lr * self._step_size_number(curved, unit)
        return Stability(number, self._log_gain(rule, descent.weight_decay))


def _of_network(settings: Settings) -> frozenset[str]:
    """Return the parameters that change the network or the initial B."""
    coefficients = dataclasses.fields(RULES[settings.rule])
    initial = {field.name for field in coefficients if field.metadata.get("initial")}
    return frozenset(SEARCHABLE).difference(settings_with_role("number")) | initial


def _checked(
    settings: Settings, parameters: tuple[str, str], values: tuple[Sequence[float], Sequence[float]]
) -> list[list[float]]:
    """Return the values as plain numbers, after checking the parameters."""
    known = [*SEARCHABLE, *coefficients_of(settings.rule)]
    for name in parameters:
        check_one_of("parameter", name, known)
    if parameters[0] == parameters[1]:
        raise InputError(f"parameters: expected two, got {parameters[0]!r} twice")
    axes: list[list[float]] = [np.asarray(axis).tolist() for axis in values]
    for name, axis in zip(parameters, axes, strict=True):
        if not axis:
            raise InputError(f"values: there is none for {name}; expected at least one")
    return axes
