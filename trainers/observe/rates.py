"""The rates at which a recorded run moves its weights after a snapshot, as far as the run records them."""

from __future__ import annotations

import dataclasses
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError
from wtdiag.probes.records import schema
from wtdiag.probes.records.config import settings_with_role
from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.rules import Rule

if TYPE_CHECKING:
    import pandas as pd


class Rates:
    """Learning rates, optimisers and rule of a run as functions of the step.

    The learning rates are those that the run logged as ``lr`` and ``feedback_lr``. The rest comes from its settings.
    For a run from the user's own loop it comes from the valid entries of ``config["settings"]`` that have the names of
    `trainers.config.settings.Settings`, and plain SGD is assumed if there are none.

    Parameters
    ----------
    run
        The recorded run.
    settings
        Its settings, if ``wtdiag train`` made it.
    examples
        Number of examples in the probe batch, which is taken for the batch size if the run names none.

    Raises
    ------
    InputError
        If a line of the metrics is not JSON within the limits of `probes.records.files.parse_json`.
    """

    def __init__(self, run: schema.Run, settings: Settings | None, examples: int) -> None:
        self._is_ours = settings is not None
        self._settings = settings or _own_settings(run.config.get("settings"), examples)
        metrics = run.metrics if (run.path / schema.METRICS).exists() else None
        self._lr, self._feedback_lr, epochs = (_logged(metrics, name) for name in ("lr", "feedback_lr", "epoch"))
        self._epoch = 0.0  # steps in an epoch
        if self._is_ours and epochs is not None and epochs.iloc[-1]:
            steps = float(epochs.index[-1]) / float(epochs.iloc[-1])
            self._epoch = round(steps) if math.isfinite(steps) else 0.0  # a stranger's metrics may hold any number

    def key(self, step: int) -> str:
        """Return all that the metrics say about a step; whatever else is known of it follows from the settings."""
        return repr((self._is_delayed(step), _at(self._lr, step), _at(self._feedback_lr, step), self.rule(step)))

    def rule(self, step: int) -> Rule | None:
        """Return the rule with its coefficients at this step; None if they never change or no epoch is known."""
        settings = self._settings
        if not (settings.has_scheduled_coefficients and self._epoch):
            return None
        return settings.rule_at(step / max(1, settings.steps(round(self._epoch))[1]), step / self._epoch)

    def forward_lr(self, step: int) -> float:
        """Return η / (1 − μ) of the forward weights: 0 during the delay, NaN if unknown or not of SGD."""
        settings = self._settings
        if settings.optimizer != "sgd":
            return math.nan
        return 0.0 if self._is_delayed(step) else _at(self._lr, step) / (1 - settings.momentum)

    @property
    def forward_decay(self) -> float:
        """The weight decay that SGD adds to the gradient of the forward weights."""
        return self._settings.weight_decay

    def feedback(self, step: int, rule: Rule) -> dict[str, Any]:
        """Return the fields of `trainers.observe.laws.Law` that describe the optimiser of B."""
        settings = self._settings
        kind = settings.feedback_optimizer or rule.recipe.optimizer
        if not (self._is_ours or settings.feedback_optimizer or kind == "forward"):
            kind = "sgd"
        together = kind == "forward"
        optimizer = settings.optimizer if together else kind
        momentum = settings.momentum if together else settings.feedback_momentum
        lr = _at(self._feedback_lr, step)
        lr = _at(self._lr, step) if together and math.isnan(lr) else lr
        # If B shares W's gradient, the difference of the two counts, and the noise of either moves it.
        shared = settings.noise_on != "feedback" and "weight_grad" in rule.shares
        noises = shared + (settings.noise_on != "forward")
        return {
            "lr": lr,
            "optimizer": optimizer,
            "momentum": momentum if optimizer == "sgd" else 0.0,
            "nesterov": settings.nesterov and optimizer == "sgd" and momentum > 0,
            "interval": 1 if self._is_delayed(step) or "weight_grad" in rule.shares else settings.alternate + 1,
            "weight_decay": decay_in_gradient(optimizer, settings.weight_decay, rule) if together else 0.0,
            "update_noise": self._update_noise(lr) * math.sqrt(noises) if noises else 0.0,
            "batch_size": settings.batch_size,
            "epoch": int(self._epoch) or None,
        }

    def _update_noise(self, lr: float) -> float:
        """Return the deviation of noise on updates of B; NaN if it is relative to updates, whose size is not known."""
        if self._settings.relative_noise:
            return math.nan
        return lr * self._settings.update_noise if self._settings.update_noise else 0.0

    def _is_delayed(self, step: int) -> bool:
        return step < round(self._settings.delay * self._epoch)


def decay_in_gradient(optimizer: str, decay: float, rule: Rule) -> float:
    """Return the weight decay that an optimiser adds to the gradient of B; NaN if it moves B* in another way.

    A decoupled decay shrinks B beside steps whose size does not follow the gradient, so that no linear law tells where
    B comes to rest. But if B takes the steps of W, it comes to W all the same.
    """
    if OPTIMIZERS[optimizer].decoupled:
        return math.nan if decay and "weight_grad" not in rule.shares else 0.0
    return decay


def _own_settings(given: Any, examples: int) -> Settings:
    """Return settings of plain SGD, changed by those of a stranger's entries that are valid."""
    # Under a rule without learned feedback, settings of the feedback would be refused.
    settings = Settings(rule="sum", momentum=0.0, batch_size=max(2, examples))
    for field in dataclasses.fields(Settings):
        if field.name not in settings_with_role("method") and isinstance(given, dict) and field.name in given:
            with suppress(InputError):
                settings = dataclasses.replace(settings, **{field.name: given[field.name]})
    return settings


def _logged(metrics: pd.DataFrame | None, name: str) -> pd.Series[float] | None:
    """Return the values of one metric that are numbers ≥ 0, by ascending step; None if there are none."""
    if metrics is None or not {"step", name} <= set(metrics.columns):
        return None
    table = metrics[["step", name]].astype(object).map(_number).dropna()
    return table.set_index("step")[name].sort_index(kind="stable") if len(table) else None


def _number(value: Any) -> float:
    number = float(value) if isinstance(value, int | float) else math.nan
    return number if 0 <= number < math.inf else math.nan


def _at(logged: pd.Series[float] | None, step: int) -> float:
    """Return the value in the training step from ``step`` on, whose line is logged after it, or else the newest."""
    if logged is None:
        return math.nan
    return float(logged.iloc[min(int(logged.index.searchsorted(step, side="right")), len(logged) - 1)])
