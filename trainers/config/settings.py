"""The settings of a run: one dataclass for the command line, config files and config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError, check_one_of, check_path
from wtdiag.probes.records.config import DeclaredSettings, settings_with_role
from wtdiag.probes.records.files import read_json, read_toml
from wtdiag.trainers.config.schedules import coefficient_schedule
from wtdiag.trainers.rules import RULES, Rule
from wtdiag.trainers.rules import rule as build_rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.regularised import Regularised


@dataclass(frozen=True, kw_only=True)
class Settings(DeclaredSettings):
    """The settings of one run; None stands for the default of the rule, the model or the data set.

    Raises
    ------
    InputError
        If a value has the wrong type, is out of range or is not among the choices, or if a setting would have no
        effect.

    Examples
    --------
    >>> Settings(rule="ia", epochs=3).batch_size
    64
    >>> Settings(epochs=-1)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: epochs: expected a number ≥ 0, got -1
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("rule", self.rule, RULES)
        self._check_that_all_is_used()
        self.rule_at(0.0, 0.0)

    @property
    def has_scheduled_coefficients(self) -> bool:
        """Whether a coefficient of the rule changes over time, so that the rule has to be built anew at each step."""
        return any(isinstance(value, str) and ":" in value for value in self.coefficients.values())

    def steps(self, epoch: int) -> tuple[int, int]:
        """Return the steps of the pretraining on noise, and of the whole run, from those of an epoch."""
        pretraining = round(self.pretrain_noise * epoch)
        return pretraining, pretraining + round(self.epochs * epoch)

    def rule_at(self, progress: float, epoch: float) -> Rule:
        """Return the rule with its coefficients at ``progress``, from 0 to 1, and ``epoch``, counted from 0."""
        values = {name: coefficient_schedule(name, value)(progress, epoch) for name, value in self.coefficients.items()}
        return build_rule(self.rule, **values)

    def _check_that_all_is_used(self) -> None:
        """Refuse settings that would silently be ignored."""
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise InputError(f"nesterov: needs sgd with momentum, got {self.optimizer} with momentum={self.momentum:g}")
        rule = RULES[self.rule]
        for field in dataclasses.fields(rule):
            value = self.coefficients.get(field.name)
            if field.metadata.get("initial") and isinstance(value, str) and ":" in value:
                raise InputError(
                    f"coefficient {field.name}: sets the initial B only, so it has no schedule; got {value!r}"
                )
        if self.points is not None and not issubclass(rule, Direct):
            raise InputError(f"points: {self.rule} does not project the output's error; dfa, drtp and dkp do")
        if not rule.learned:
            for name in settings_with_role("feedback"):
                if getattr(self, name) and name != "noise_on":
                    raise InputError(
                        f"{name}: {self.rule} has no learned feedback weights, got {getattr(self, name)!r}"
                    )
            if (self.update_noise or self.relative_noise) and self.noise_on == "feedback":
                raise InputError(f"noise_on: {self.rule} has no learned feedback weights, got 'feedback'")
        if self.pretrain_noise and (rule.learned or rule.tied or rule.transports):
            raise InputError(f"pretrain_noise: {self.rule} has no fixed feedback weights, got {self.pretrain_noise!r}")
        optimizer = self.feedback_optimizer or rule.recipe.optimizer
        if optimizer == "forward" and self.feedback_lr is not None:
            raise InputError(f"feedback_lr: {self.rule} takes the forward weights' steps; give feedback_optimizer too")
        if self.s_guard and (optimizer != "sgd" or not issubclass(rule, Regularised)):
            steps = f"{optimizer} steps" if optimizer != "sgd" else "other steps than those of a sum of primitives"
            raise InputError(
                f"s_guard: needs feedback weights that take sgd steps of their own; {self.rule} takes {steps}"
            )
        if self.s_guard and not self.rule_at(0.0, 0.0).affine:
            raise InputError(
                "s_guard: there is no step-size number with normalise='all', with activation_backward, or where noise "
                "meets bias or activation_forward"
            )
        if self.s_guard and self.accumulate > 1:
            raise InputError(f"s_guard: measures on whole batches, which accumulate={self.accumulate} splits")
        if self.compile:
            self._check_that_it_compiles()
        if self.devices > max(1, self.batch_size // 2):
            raise InputError(
                f"devices: {self.devices} are too many for batch_size={self.batch_size}; each needs two examples"
            )
        if optimizer != "sgd" and self.feedback_momentum:
            raise InputError(f"feedback_momentum: only sgd has it, but the feedback weights take {optimizer} steps")

    def _check_that_it_compiles(self) -> None:
        """Refuse settings under which each step would be compiled anew, or not at all."""
        if RULES[self.rule].passes_twice:
            raise InputError(f"compile: {self.rule} takes a second forward pass, which torch.compile cannot")
        for name, why in (
            ("s_guard", "changes the rule between steps"),
            ("checkpoint_activations", "keeps the statistics of batch norm in its own way"),
            ("has_scheduled_coefficients", "changes the rule at each step"),
        ):
            if getattr(self, name):
                what = "a schedule of a coefficient" if name.startswith("has") else name
                raise InputError(f"compile: {what} {why}; leave out one of them")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, for config.json."""
        return dataclasses.asdict(self)


DEFAULTS: dict[str, Any] = {
    field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    for field in dataclasses.fields(Settings)
}
"""The default of every setting, by its name. A run that was made before a setting existed did what the default does."""


def from_mapping(settings: Mapping[str, Any], source: str) -> Settings:
    """Return settings built from plain data; messages name ``source`` as their origin.

    Raises
    ------
    InputError
        If a name is unknown, or a value cannot be used.

    Examples
    --------
    >>> from_mapping({"rul": "fa"}, "my.toml")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: my.toml: setting: 'rul' is not known; did you mean 'rule'? Choices: ...
    """
    names = [field.name for field in dataclasses.fields(Settings)]
    try:
        for name in settings:
            check_one_of("setting", name, names)
        return Settings(**settings)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def with_rule(settings: dict[str, Any], rule: Any) -> dict[str, Any]:
    """Return the settings of a run with those coefficients of its rule, as recorded, whose defaults are others now.

    Where a coefficient was not recorded, there was none yet; it becomes what the rule did then.

    Examples
    --------
    >>> with_rule({"rule": "kp", "coefficients": {}}, {"name": "kp", "scale": 1.0, "decay": 0.3})
    {'rule': 'kp', 'coefficients': {'decay': 0.3}}
    >>> with_rule({"rule": "dkp"}, {"name": "dkp", "scale": 1.0, "decay": 0.01})
    {'rule': 'dkp', 'coefficients': {'reduction': 'sum'}}
    """
    name, given = settings.get("rule", DEFAULTS["rule"]), settings.get("coefficients", {})
    if not isinstance(rule, dict) or rule.get("name") != name or name not in RULES or not isinstance(given, dict):
        return settings
    fields = {field.name: field for field in dataclasses.fields(RULES[name])}
    values = {each: rule.get(each, field.metadata.get("before", field.default)) for each, field in fields.items()}
    other = {each: value for each, value in values.items() if value != fields[each].default}
    return settings | {"coefficients": other | given} if other else settings


def read_config(path: Path, *, follow: bool = True) -> dict[str, Any]:
    """Read settings from a TOML file or from a run's config.json; ``follow`` says whether the latter may be a link.

    The settings of a run hold those coefficients that it recorded and whose defaults have changed since.

    Raises
    ------
    InputError
        If the file is missing, has another ending, or cannot be parsed.
    """
    check_path("config", path)
    try:
        if path.suffix == ".toml":
            return read_toml(path)[0]
        if path.suffix == ".json":
            content = read_json(path, follow=follow)
            settings = content.get("settings", content)
            if not isinstance(settings, dict):
                raise InputError(f"{path}: holds no settings")
            return with_rule(settings, content.get("rule"))
    except InputError as error:
        raise InputError(f"config: {error}") from error
    raise InputError(f"config: {path}: expected a .toml file or a run's config.json")
