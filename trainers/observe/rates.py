"""At what rates a recorded run moves its weights from a snapshot on, as far as it says."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError
from wtdiag.probes.records import schema
from wtdiag.probes.records.config import settings_with_role
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.rules import Rule

if TYPE_CHECKING:
    import pandas as pd


class Rates:
    """Learning rates, optimisers and rule of a run as functions of the step.

    The rates are those that it logged as ``lr`` and ``feedback_lr``. The rest comes from its settings; of a run from a
    loop of one's own, from those entries of ``config["settings"]`` that are named as
    `trainers.config.settings.Settings` names them and valid, and is plain SGD where there are none.

    Parameters
    ----------
    run
        The recorded run.
    settings
        Its settings, if ``wtdiag train`` made it.
    examples
        In the probe batch: the batch size where the run names none.

    Raises
    ------
    InputError
        If a line of the metrics is not JSON.
    """

    def __init__(self, run: schema.Run, settings: Settings | None, examples: int) -> None:
        self._is_ours = settings is not None
        self._settings = settings or _own_settings(run.config.get("settings"), examples)
        metrics = run.metrics if (run.path / schema.METRICS).exists() else None
        self._lr, self._feedback_lr, epochs = (_logged(metrics, name) for name in ("lr", "feedback_lr", "epoch"))
        self._epoch = 0.0  # steps of one
        if self._is_ours and epochs is not None and epochs.iloc[-1]:
            steps = float(epochs.index[-1]) / float(epochs.iloc[-1])
            self._epoch = round(steps) if math.isfinite(steps) else 0.0  # a stranger's metrics may hold any number

    def rule(self, step: int) -> Rule | None:
        """Return the rule with the coefficients of this step; None where they never change, or no epoch is known."""
        settings = self._settings
        scheduled = any(isinstance(value, str) and ":" in value for value in settings.coefficients.values())
        if not (scheduled and self._epoch):
            return None
        return settings.rule_at(step / max(1, round(settings.epochs * self._epoch)), step / self._epoch)

    def forward_lr(self, step: int) -> float:
        """Return η / (1 − μ) of the forward weights: 0 while they wait, NaN where unknown or no plain multiple."""
        settings = self._settings
        if settings.optimizer != "sgd":
            return math.nan
        return 0.0 if self._waits(step) else _at(self._lr, step) / (1 - settings.momentum)

    def feedback(self, step: int, rule: Rule) -> dict[str, Any]:
        """Return what a `trainers.observe.laws.Law` has to know of the optimiser of B."""
        settings = self._settings
        kind = settings.feedback_optimizer or rule.recipe.optimizer
        if not (self._is_ours or settings.feedback_optimizer or kind == "forward"):
            kind = "sgd"
        together = kind == "forward"
        optimizer = settings.optimizer if together else kind
        momentum = settings.momentum if together else settings.feedback_momentum
        lr = _at(self._feedback_lr, step)
        lr = _at(self._lr, step) if together and math.isnan(lr) else lr
        # Of B that shares W's gradient what counts is the difference, which the noise of either moves.
        shared = settings.noise_on != "feedback" and "weight_grad" in rule.shares
        noises = shared + (settings.noise_on != "forward")
        return {
            "lr": lr,
            "optimizer": optimizer,
            "momentum": momentum if optimizer == "sgd" else 0.0,
            "nesterov": settings.nesterov and optimizer == "sgd" and momentum > 0,
            "interval": 1 if self._waits(step) or "weight_grad" in rule.shares else settings.alternate + 1,
            "weight_decay": settings.weight_decay if together and optimizer != "adamw" else 0.0,
            "update_noise": lr * settings.update_noise * math.sqrt(noises) if settings.update_noise else 0.0,
            "batch_size": settings.batch_size,
        }

    def _waits(self, step: int) -> bool:
        return step < round(self._settings.delay * self._epoch)


def _own_settings(given: Any, examples: int) -> Settings:
    """Return what a stranger's entries say, as far as they are valid one by one, over plain SGD."""
    # Any rule with learned feedback, or settings for that would be refused.
    settings = Settings(rule="sum", momentum=0.0, batch_size=max(2, examples))
    for field in dataclasses.fields(Settings):
        if field.name not in settings_with_role("method") and isinstance(given, dict) and field.name in given:
            with suppress(InputError):
                settings = dataclasses.replace(settings, **{field.name: given[field.name]})
    return settings


def _logged(metrics: pd.DataFrame | None, name: str) -> pd.Series[float] | None:
    """Return one metric by step, ascending, where it is a number ≥ 0; None if it never is."""
    if metrics is None or not {"step", name} <= set(metrics.columns):
        return None
    table = metrics[["step", name]].astype(object).map(_number).dropna()
    return table.set_index("step")[name].sort_index(kind="stable") if len(table) else None


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan
    return number if 0 <= number < math.inf else math.nan


def _at(logged: pd.Series[float] | None, step: int) -> float:
    """Return what moved the weights of ``step`` on: a line is logged after its step. Else the newest there is."""
    if logged is None:
        return math.nan
    return float(logged.iloc[min(int(logged.index.searchsorted(step, side="right")), len(logged) - 1)])
