"""How accurate a run is: against chance, and against a run of another rule where one is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wtdiag.probes.records.evaluations import classes_of, column, evaluated_on, evaluations

_LINES = 20  # training batches that stand for an evaluation where there was none


@dataclass(frozen=True)
class Reference:
    """A run that another one is held against, as a rule one by backpropagation.

    Attributes
    ----------
    name, rule : str
        Its name and its rule.
    accuracy : float
        Its accuracy, as a fraction.
    on : str
        What that was measured on, as in `Accuracy`.
    differs : str
        Settings other than the rule's own in which the two runs differ, separated by commas.
    """

    name: str
    rule: str
    accuracy: float
    on: str
    differs: str = ""

    @property
    def called(self) -> str:
        """The rule in words."""
        return "backprop" if self.rule == "bp" else self.rule


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a run, as fractions, with NaN for what is not known.

    Attributes
    ----------
    value, step : float
        Accuracy at the last evaluation, and its step; that of the last training batches if the run was never evaluated.
    on : str
        What it was measured on: "test", "validation" (held out of the training set) or "training" (batches).
    chance : float
        Accuracy without learning: that of always naming the most frequent class, or 1 / classes where its share is not
        known.
    reference : Reference or None
        The run that it is held against.

    Examples
    --------
    >>> metrics = pd.DataFrame({"step": [10], "test_accuracy": [0.11]})
    >>> here = accuracy(metrics, {"network": {"classes": 10}}, Reference("runs/bp", "bp", 0.95, "test"))
    >>> here.value, here.chance, here.at_chance, round(here.gap, 2)
    (0.11, 0.1, True, 0.84)
    """

    value: float
    step: float
    on: str
    chance: float
    reference: Reference | None

    @property
    def skill(self) -> float:
        """Share of the way from chance to 1 that the network has gone: Cohen's kappa."""
        return (self.value - self.chance) / (1 - self.chance) if self.chance < 1 else math.nan

    @property
    def at_chance(self) -> bool:
        """Whether the network does no better than without learning; False if that is not known."""
        return self.skill < LEARNED

    @property
    def gap(self) -> float:
        """Accuracy of the reference minus that of the run; NaN without one, or if it was measured on another set."""
        if self.reference is None or self.reference.on != self.on:
            return math.nan
        return self.reference.accuracy - self.value


LEARNED = 0.05
"""Share of the way from chance to 1 below which a network is at chance: guessing goes that far in 1 of 200 test sets of
360 examples and ten classes."""


def accuracy(metrics: pd.DataFrame, config: Mapping[str, Any], reference: Reference | None = None) -> Accuracy:
    """Return the accuracy of a run from its metrics and its config."""
    tested, on = evaluations(metrics, config, "accuracy"), evaluated_on(metrics, config)
    if tested.empty:
        tested, on = column(metrics, "accuracy"), "training"
    value = math.nan if tested.empty else float(tested.iloc[-1] if on != "training" else tested.iloc[-_LINES:].mean())
    return Accuracy(value, math.nan if tested.empty else float(tested.index[-1]), on, _chance(config), reference)


def _chance(config: Mapping[str, Any]) -> float:
    network = config.get("network")
    share = network.get("majority") if isinstance(network, dict) else None
    if isinstance(share, float) and 0 < share <= 1:
        return share
    classes = classes_of(config)
    return 1 / classes if classes else math.nan
