"""The numbers that summarise a run, taken from its analysis and metrics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.accuracy import Accuracy
from wtdiag.diagnostics.analysis.chance import chance_band
from wtdiag.diagnostics.analysis.layout import carrying, last_measured
from wtdiag.reports.run.sources import Source

NAN = float("nan")


@dataclass(frozen=True)
class Facts:
    """Summary of a run: angles in degrees, accuracies as fractions, NaN or None for what it does not hold.

    Attributes
    ----------
    rule, status : str
        Name of the rule, and how the run ended.
    diverged_step, diverged_what : int or None, str
        Step at which a run diverged, and what went wrong there.
    tested_on : {"test", "validation"}
        The set of the evaluations.
    test_accuracy, test_step : float
        Accuracy of the last evaluation, and its step.
    step, last_step : int
        The last snapshot that holds a measure, from which the numbers below are taken, and the last one of all.
    weight_angle, weight_angle_median : float
        Mean and median over the layers that carry error and have an angle.
    chance, chance_sd : float
        Mean null expectation of these angles, and the largest of their standard deviations.
    aligned, measured : int
        Layers whose angle lies below what chance explains (`chance_band`); layers with an angle.
    norm_ratio : float
        Geometric mean over the layers that carry error.
    first : str
        What the first layer is called: "first layer", or "first recorded layer" of a network that other code trained.
    first_layer, error_angle : str, float
        Its name, and the angle between the error that trains it and that of exact backpropagation.
    sender, local, inherited, total : str, float
        The lowest layer that sends error down, and the three angles of the error that it sends.
    largest_s, largest_s_layer : float, str
        The largest step-size number over all snapshots, and its layer.
    converted : float
        Share of the entries of all weight matrices whose error goes through B.
    compared : Accuracy
        The accuracy, that of chance, and that of the reference run.
    """

    rule: str
    status: str
    diverged_step: int | None
    diverged_what: str
    tested_on: str
    test_accuracy: float
    test_step: float
    step: int
    last_step: int
    weight_angle: float
    weight_angle_median: float
    chance: float
    chance_sd: float
    aligned: int
    measured: int
    norm_ratio: float
    first: str
    first_layer: str
    error_angle: float
    sender: str
    local: float
    inherited: float
    total: float
    largest_s: float
    largest_s_layer: str
    converted: float
    compared: Accuracy


def facts(source: Source) -> Facts:
    """Return the summary of a run."""
    analysis, config = source.analysis, source.config
    index = last_measured(analysis)
    now = analysis.isel(step=index)
    carries = carrying(analysis)
    angle = _values(now, "weight_angle")
    chance, chance_sd = _values(now, "weight_angle_null"), _values(now, "weight_angle_null_sd")
    measured = carries & np.isfinite(angle)
    ratio = _values(now, "norm_ratio")[carries]
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    sender = int(np.argmax(np.isfinite(_values(now, "error_angle_total"))))
    test = source.evaluation("accuracy")
    diverged = config.get("diverged")
    diverged = diverged if isinstance(diverged, dict) else {}
    diverged_step = diverged.get("step")
    largest_s, largest_s_layer = _largest(analysis, "step_size_number")
    return Facts(
        rule=source.rule,
        status=str(config.get("status", "unknown")),
        diverged_step=diverged_step if isinstance(diverged_step, int) else None,
        diverged_what=str(diverged.get("what", "")),
        tested_on=source.tested_on,
        test_accuracy=float(test.iloc[-1]) if len(test) else NAN,
        test_step=float(test.index[-1]) if len(test) else NAN,
        step=int(analysis.step[index]),
        last_step=int(analysis.step[-1]),
        weight_angle=_mean(angle[measured]),
        weight_angle_median=float(np.median(angle[measured])) if measured.any() else NAN,
        chance=_mean(chance[measured]),
        chance_sd=float(chance_sd[measured].max()) if measured.any() else NAN,
        aligned=int(np.sum(angle[measured] < chance_band(chance, chance_sd)[0][measured])),
        measured=int(measured.sum()),
        norm_ratio=float(np.exp(np.mean(np.log(ratio)))) if len(ratio) else NAN,
        first=source.first_layer,
        first_layer=str(analysis.layer.values[0]),
        error_angle=float(_values(now, "error_angle")[0]),
        sender=str(analysis.layer.values[sender]),
        local=float(_values(now, "error_angle_local")[sender]),
        inherited=float(_values(now, "error_angle_inherited")[sender]),
        total=float(_values(now, "error_angle_total")[sender]),
        largest_s=largest_s,
        largest_s_layer=largest_s_layer,
        converted=_share(config.get("converted")),
        compared=source.accuracy,
    )


def _share(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else NAN


def _largest(analysis: xr.Dataset, measure: str) -> tuple[float, str]:
    """Return the largest value of a measure over steps and layers, and its layer; NaN and "" if there is none."""
    if measure not in analysis or not np.isfinite(analysis[measure].values).any():
        return NAN, ""
    by_layer = analysis[measure].max("step").values  # skips NaN
    index = int(np.nanargmax(by_layer))
    return float(by_layer[index]), str(analysis.layer.values[index])


def _values(now: xr.Dataset, name: str) -> NDArray[np.float64]:
    """Return one value per layer, NaN if the analysis lacks the variable."""
    if name not in now:
        return np.full(now.sizes["layer"], NAN)
    values = now[name].broadcast_like(now.layer).transpose("layer").values
    return np.asarray(values, dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else NAN
