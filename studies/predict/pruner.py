"""An Optuna pruner that stops trials which theory predicts to be unstable or to have an exploding gain."""

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
    """Pruner of trials whose feedback weights B take unstable steps, or move towards too large a gain.

    A rule's update is linear in B, dB/dt = −(H B − target), so steps η are stable if and only if

        S = η / η* ≤ 1

    (η* = 2 (1 + μ) / λmax(H) with momentum μ, if H is the same in all batches). A trial is pruned if S > 1 in any
    layer, or if the gain through all layers at the fixed point B* of the feedback, the product of ⟨B*, W⟩ / ⟨W, W⟩, is
    above e⁷, which the diagnosis calls a runaway gain: Σ log gain > 7. A number that is not known is NaN and never
    prunes.

    Any Optuna study can use it: a trial sets its user attributes ``step_size_number`` (the largest over its layers) and
    ``log_gain`` (natural logarithm) before it calls ``trial.should_prune()``. ``docs/early-warning.md`` reports how
    often each of the two was right.

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
        """Return whether a trial should be stopped, according to its user attributes."""
        return bool(why(*(_number(trial.user_attrs.get(name)) for name in (STEP_SIZE_NUMBER, LOG_GAIN))))


def why(step_size_number: float, log_gain: float) -> str:
    """Return the reason to stop a trial; "" if there is none.

    Parameters
    ----------
    step_size_number
        Largest S over the layers; NaN if it is not known.
    log_gain
        Sum over layers of log |⟨B*, W⟩ / ⟨W, W⟩|; NaN if it is not known.

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
