"""Advice on a finding: remedies that fit the run, as sentences, and the best of them as a command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from wtdiag.diagnostics.analysis.view import View
from wtdiag.probes.records.config import Changes, as_typed, command_options, settings_with_role
from wtdiag.probes.records.schema import CONFIG

Accepts = Callable[[Changes], bool]
"""Whether ``wtdiag train`` could make the run again with these settings changed, and they would have an effect."""

_WIDTH = 72  # of a line of a command
_MOST = 3  # the most remedies that one finding suggests


@dataclass(frozen=True)
class Case:
    """A fault that asks for advice: the run as detectors see it, and where in it the fault was seen.

    Attributes
    ----------
    view : View
        The run.
    layer : int or None
        The layer concerned; None for the whole network.
    accepts : callable or None
        Which changes ``wtdiag train`` accepts; None for a run of the user's own loop, which has no settings.
    """

    view: View
    layer: int | None
    accepts: Accepts | None = None

    @property
    def where(self) -> str:
        """Name of the layer, "all layers" for the whole network."""
        return "all layers" if self.layer is None else self.view.layers[self.layer]

    @property
    def is_foreign(self) -> bool:
        """Whether code that is not wtdiag's carries the errors."""
        return "foreign" in self.view.config

    @property
    def learns(self) -> bool:
        """Whether any feedback learns: settings of how it does are the same for all layers."""
        return bool((self.view.learned & self.view.carries).any())

    @property
    def coefficients(self) -> Mapping[str, Any]:
        """Coefficients and options of the layer's rule by name, as the run's config records them."""
        rule = self.view.config.get("rule")
        match rule:
            case {"name": "mixed", "layers": {**layers}}:
                rule = layers.get(self.where)
        return rule if isinstance(rule, dict) else {}

    def coefficient(self, name: str) -> float:
        """Return a coefficient; NaN if the rule has none of this name, or it changes over time."""
        return _number(self.coefficients.get(name))

    def setting(self, name: str) -> Any:
        """Return a setting of the run; None if it is not known."""
        settings = self.view.config.get("settings")
        return settings.get(name) if isinstance(settings, dict) else None

    def rate(self, name: str) -> float:
        """Return the largest learning rate "lr" or "feedback_lr" as set, or else as logged; NaN if it is not known."""
        if (given := _number(self.setting(name))) > 0:
            return given
        rates = self.view.metric(name)
        rates = rates[np.isfinite(rates) & (rates > 0)]
        return float(rates.max()) if len(rates) else math.nan

    def typical(self, measure: str, step: int | None = None) -> float:
        """Return the median over the layers whose B and W can be compared, at a snapshot or else the last known one."""
        values = np.where(self.view.compared, self.view[measure], np.nan)
        known = np.flatnonzero(np.isfinite(values).any(axis=1))
        if not len(known):
            return math.nan
        row = values[known[-1] if step is None else known[min(step, len(known) - 1)]]
        return float(np.median(row[np.isfinite(row)]))


@dataclass(frozen=True)
class Suggestion:
    """Something to try: a sentence, and the settings that it changes; none if no setting expresses it."""

    sentence: str
    changes: Changes = field(default_factory=dict)


Remedy = Callable[[Case], Suggestion | None]
"""A function that returns what to try in a case, or None if it would not help there."""


def advise(case: Case, remedies: Iterable[Remedy | str]) -> tuple[tuple[str, ...], Changes]:
    """Return the advice in a case, and the settings that the first of its remedies changes.

    Remedies that do not fit the case are left out. The others keep their order, except that those that a command can
    express come first. A remedy that is a text always fits.
    """
    suggestions = [Suggestion(each) if isinstance(each, str) else each(case) for each in remedies]
    fitting = [each for each in suggestions if each is not None and _fits(case, each.changes)]
    fitting = list({each.sentence: each for each in fitting}.values())  # a sighting may repeat a remedy of its kind
    fitting.sort(key=lambda each: not each.changes)
    best = fitting[:_MOST]
    changes: Changes = best[0].changes if best else {}
    lines = [each.sentence for each in best]
    if case.accepts is None and changes and not case.is_foreign:
        lines[0] += _in_a_loop(case, changes)
    return tuple(lines), {} if case.accepts is None else changes


def command(changes: Changes, run: Path) -> str:
    r"""Return the command that makes the run in the directory ``run`` again with changed settings; "" without changes.

    The new run goes beside the old one, under the next number that is free. A long command is continued on further
    lines, as a shell reads it.

    Examples
    --------
    >>> command({"coefficients": {"inputs": "noise"}}, Path("runs/ia"))
    'wtdiag train --config runs/ia/config.json -c inputs=noise --out runs/ia-2'
    >>> print(command({"feedback_lr": 0.1}, Path("runs/information alignment, 8 layers")))
    wtdiag train --config 'runs/information alignment, 8 layers/config.json' \
      --feedback-lr 0.1 --out 'runs/information alignment, 8 layers-2'
    """
    if not changes:
        return ""
    run = run if run.name not in ("", "..") else run.resolve()
    free = next(path for number in count(2) if not (path := run.with_name(f"{run.name}-{number}")).exists())
    words = ["--config", str(run / CONFIG), *command_options(changes), "--out", str(free)]
    lines, glued = ["wtdiag train"], True
    for word in map(shlex.quote, words):
        if glued or len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
        glued = word.startswith("-")  # an option stays on the line of its value
    return " \\\n".join(lines)


def rounded(value: float) -> float:
    """Return a number with two significant digits.

    Examples
    --------
    >>> rounded(0.12345)
    0.12
    """
    return float(f"{value:.2g}")


def stated(value: float) -> str:
    """Return a number with two significant digits as both a sentence and the command below it write it.

    Examples
    --------
    >>> stated(0.0000512), stated(1234), stated(3.0)
    ('5.1e-5', '1200', '3')
    """
    return as_typed(rounded(value))


def _fits(case: Case, changes: Changes) -> bool:
    """Return whether changed settings fit the rule and would have an effect."""
    if not changes:
        return True
    if not case.learns and not changes.keys().isdisjoint(settings_with_role("feedback")):
        return False
    if not changes.get("coefficients", {}).keys() <= case.coefficients.keys():
        return False
    return case.accepts is None or case.accepts(changes)


def _in_a_loop(case: Case, changes: Changes) -> str:
    """Return how a training loop in Python makes the changes."""
    said = []
    for name, value in changes.items():
        match name:
            case "rule":
                said.append(f'convert the network by wtdiag.transport_free(model, "{value}")')
            case "coefficients":
                rule, given = case.coefficients.get("name"), ", ".join(f"{key}={each!r}" for key, each in value.items())
                said.append(f'convert the network by wtdiag.transport_free(model, wtdiag.rule("{rule}", {given}))')
            case "lr" | "feedback_lr":
                weights = "feedback" if name == "feedback_lr" else "forward"
                said.append(f"give the optimiser's group of {weights} weights lr={as_typed(value)}")
            case "clip_norm":
                said.append(f"call torch.nn.utils.clip_grad_norm_(weights, {value:g}) before the optimiser's step")
            case _:
                said.append(f"train with {name.replace('_', ' ')} {as_typed(value)}")
    return f" In a training loop of your own, {' and '.join(said)}."


def _number(value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else math.nan
