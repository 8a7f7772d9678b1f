"""An Optuna pruner that stops what theory predicts to be unstable, or of exploding gain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna.pruners import BasePruner

from wtdiag.diagnostics.findings.thresholds import limit

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STEP_SIZE_NUMBER = "step_size_number"
LOG_GAIN = "log_gain"


class StepSizePruner(BasePruner):
    """Prune a trial whose feedback weights B take unstable steps, or are on their way to too large a gain.

    A rule's mean update is linear in B, dB/dt = −(H B − target), so steps η are stable if and only if

        S = η λmax(H) / 2 ≤ 1

    (with momentum μ: S = η λmax(H) / (2 (1 + μ))). A trial is pruned if S > 1 in any layer, or if the gain through all
    layers at which B would come to rest, the product of ⟨B*, W⟩ / ⟨W, W⟩, is beyond what the diagnosis calls a runaway
    gain, e⁷: Σ log gain > 7. What is not known is NaN and never prunes.

    Any study can use it: a trial sets its user attributes ``step_size_number`` (the largest of its layers) and
    ``log_gain`` (natural logarithm) before ``trial.should_prune()`` is asked. ``docs/early-warning.md`` tells how often
    the two were right.

    Examples
    --------
    >>> import optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(pruner=StepSizePruner())
    >>> trial = study.ask()
    >>> trial.set_user_attr("step_size_number", 1.5)
    >>> trial.should_prune()
    True
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a trial is to be stopped, by its user attributes."""
        return bool(why(*(_number(trial.user_attrs.get(name)) for name in (STEP_SIZE_NUMBER, LOG_GAIN))))


def why(step_size_number: float, log_gain: float) -> str:
    """Say why a trial is to be stopped; "" if it is not.

    Parameters
    ----------
    step_size_number
        Largest S of all layers; NaN if unknown.
    log_gain
        Sum over layers of log |⟨B*, W⟩ / ⟨W, W⟩|; NaN if unknown.

    Examples
    --------
    >>> why(2.0, 0.0)
    'step-size number 2 is above 1: unstable'
    >>> why(float("nan"), 0.0)
    ''
    """
    if step_size_number > limit("step_size_number"):
        return f"step-size number {step_size_number:.3g} is above {limit('step_size_number'):g}: unstable"
    if log_gain > limit("gain_sum"):
        return f"predicted log gain {log_gain:.3g} through all layers is above {limit('gain_sum'):g}: errors blow up"
    return ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
