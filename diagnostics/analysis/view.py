"""An analysed run as detectors see it: arrays over (step, layer), in which NaN stands for what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.accuracy import Reference, accuracy
from wtdiag.diagnostics.analysis.chance import chance_band
from wtdiag.diagnostics.analysis.layout import carrying, flag
from wtdiag.diagnostics.analysis.owed import Baseline
from wtdiag.diagnostics.analysis.reading import known, measure_of
from wtdiag.probes.errors import check_one_of
from wtdiag.probes.records.config import rule_name
from wtdiag.probes.records.evaluations import column, evaluations, numbers

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class View:
    """Read-only view of an analysis, its config and its metrics, any of which may be incomplete.

    Attributes
    ----------
    layers : tuple of str
        The layers in forward order.
    steps : array of int
        The steps of the snapshots.
    carries, carrying : array of bool, tuple of int
        The layers whose feedback sends error to another layer; all of them if the analysis does not say.
    sending_down : tuple of int
        The layers whose feedback sends error to the layer below, through a B that is compared with W.
    direct : array of bool
        The layers whose feedback comes straight from the output; none if the analysis does not say.
    accuracy : Accuracy
        The accuracy of the run, that of chance, and that of a reference run where one is known.
    baseline : Baseline, optional
        What the run owes to its lower layers, if that was measured.

    Examples
    --------
    >>> angle = xr.DataArray([[90.0, 30.0]], dims=("step", "layer"))
    >>> analysis = xr.Dataset({"weight_angle": angle}, {"step": [5], "layer": ["fc1", "fc2"]})
    >>> view = View(analysis, {}, pd.DataFrame())
    >>> view["weight_angle"].tolist(), view.has("norm_ratio"), view.layers
    ([[90.0, 30.0]], False, ('fc1', 'fc2'))
    """

    def __init__(
        self,
        analysis: xr.Dataset,
        config: Mapping[str, Any],
        metrics: pd.DataFrame,
        reference: Reference | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        self.baseline = baseline
        self._analysis, self.config, self._metrics = analysis, config, metrics
        self.accuracy = accuracy(metrics, config, reference)
        self._arrays: dict[str, Floats] = {}
        self.layers = tuple(map(str, analysis.layer.values))
        self.steps = np.asarray(analysis.step.values, dtype=np.int64)
        self.carries, self.direct = carrying(analysis), flag(analysis, "direct")
        self.carrying: tuple[int, ...] = tuple(np.flatnonzero(self.carries).tolist())
        self.sending_down: tuple[int, ...] = tuple(np.flatnonzero(self.carries & ~self.direct).tolist())

    def __getitem__(self, name: str) -> Floats:
        """Return a measure over (step, layer); a measure without layers is repeated in all of them.

        Raises
        ------
        InputError
            If the analysis lacks the measure and it is not defined either, because a name may be misspelt.
        """
        if name not in self._arrays:
            if name not in self._analysis:
                check_one_of("measure", measure_of(name), known())
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def has(self, name: str) -> bool:
        """Return whether a measure has a value anywhere."""
        return not bool(np.isnan(self[name]).all())

    def band(self, name: str) -> tuple[Floats, Floats]:
        """Return the lower and upper end of a measure's chance band."""
        return chance_band(self[f"{name}_null"], self[f"{name}_null_sd"])

    def metric(self, name: str) -> pd.Series[float]:
        """Return the numbers of a column of the metrics by step, in their order; empty if it was not logged."""
        return numbers(self._metrics, name)

    def logged(self, name: str) -> pd.Series[float]:
        """Return the finite numbers of a column of the metrics by step, one for each step; empty if there is none."""
        return column(self._metrics, name)

    def evaluations(self, name: str) -> pd.Series[float]:
        """Return the "accuracy" or the "loss" of the evaluations by step; empty if there were none."""
        return evaluations(self._metrics, self.config, name)

    def rates(self, name: str) -> Floats:
        """Return by snapshot the learning rate of the step that follows, or else the last one before; NaN if none."""
        rates = self.metric(name).dropna()
        if rates.empty:
            return np.full(len(self.steps), np.nan)
        following = np.searchsorted(rates.index.to_numpy(), self.steps, side="right")
        return np.asarray(rates.to_numpy()[np.minimum(following, len(rates) - 1)], dtype=np.float64)

    @cached_property
    def rule(self) -> str:
        """Name of the run's rule, "unknown" if its config does not say."""
        return rule_name(self.config)

    @cached_property
    def compared(self) -> Mask:
        """By step and layer, whether W and B can be compared: B is finite, has W's shape, and sends error on."""
        angle = np.isfinite(self["weight_angle"])
        zero = self["norm_ratio"] == 0  # B then has a ratio but no angle
        return np.asarray((angle | zero) & self.carries & ~self.direct)

    @cached_property
    def moved(self) -> Mask:
        """By interval between snapshots and layer, whether B changed at all."""
        change = np.zeros((max(0, len(self.steps) - 1), len(self.layers)), dtype=bool)
        for name in ("feedback_norm", "feedback_spectral_norm", "feedback_nuclear_norm"):
            values = self[name]
            change |= np.isfinite(values[1:]) & np.isfinite(values[:-1]) & (values[1:] != values[:-1])
        return change

    @cached_property
    def learned(self) -> Mask:
        """By layer, whether B learns: its law is known, or if no law is, the analysis does not call it fixed."""
        law = np.isfinite(self["rest_distance"]).any(axis=0)
        return np.asarray(law if law.any() else ~flag(self._analysis, "fixed"))

    @cached_property
    def diverged(self) -> tuple[int | None, str] | None:
        """Step at which the run ended with a number that is not finite, and what that was, from its config."""
        if self.config.get("status") != "diverged":
            return None
        match self.config.get("diverged"):
            case {"step": int(step), "what": str(what)} if 0 <= step < 2**63:
                return step, what
        return None, ""

    @cached_property
    def broken_loss(self) -> float:
        """Step from which on the loss is not finite until the end; NaN if there is none.

        A line of the metrics without a loss looks like a loss that is not a number, so three such lines are needed.
        """
        finite = np.isfinite(self.metric("loss").to_numpy())
        since = int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0
        return float(self.metric("loss").index[since]) if finite.any() and len(finite) - since >= 3 else math.nan

    @cached_property
    def collapse(self) -> float:
        """Step at which training broke for good; NaN if it did not.

        At this step a number was not finite, or from this step on the loss stayed above its start by half of its size
        and the network did not end up right most of the time.
        """
        loss = self.metric("loss")
        steps = [self.broken_loss] if not math.isnan(self.broken_loss) else []
        steps += [float(self.diverged[0])] if self.diverged and self.diverged[0] is not None else []
        finite = loss[np.isfinite(loss)]
        if len(finite) > 5:
            smooth = finite.rolling(5, min_periods=1).median()
            start = float(smooth.iloc[4])
            fine = np.flatnonzero(smooth.to_numpy() <= start + abs(start) / 2)
            if fine[-1] + 1 < len(smooth) and not self.is_accurate:
                steps.append(float(smooth.index[fine[-1] + 1]))
        return min(steps, default=math.nan)

    @property
    def is_accurate(self) -> bool:
        """Whether the network ended up right most of the time; False if that is not known."""
        return self.accuracy.skill > 0.5

    @cached_property
    def learned_the_task(self) -> bool:
        """Whether the network ended up better than chance.

        Where its accuracy is not known, its loss has to end below half of where it began; true if that was not logged.
        """
        if not math.isnan(self.accuracy.skill):
            return not self.accuracy.at_chance
        loss = self.metric("loss").dropna()
        return len(loss) < 10 or bool(np.median(loss.iloc[-5:]) < 0.5 * np.median(loss.iloc[:3]))

    def _array(self, name: str) -> Floats:
        shape = len(self.steps), len(self.layers)
        if name not in self._analysis:
            return np.full(shape, np.nan)
        variable = self._analysis[name].variable
        if not set(variable.dims) <= {"step", "layer"} or variable.dtype.kind not in "fiub":
            return np.full(shape, np.nan)
        whole = self._analysis[name].broadcast_like(xr.DataArray(np.empty(shape), dims=("step", "layer")))
        return np.asarray(whole.transpose("step", "layer").values, dtype=np.float64)
