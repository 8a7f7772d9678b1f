"""Everything that makes a run: one dataclass behind the command line, config files and config.json alike."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.trainers.config.schedules import SCHEDULES, Coefficient, coefficient_schedule
from wtdiag.trainers.rules import RULES, Rule
from wtdiag.trainers.rules import rule as build_rule

OPTIMIZERS = ("sgd", "adam", "adamw")


def _setting(default: Any, description: str, *, choices: tuple[str, ...] = (), least: float | None = None) -> Any:
    metadata = {"help": description, "choices": choices, "least": least}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run; a None means: what the rule, model or data set itself recommends.

    Raises
    ------
    InputError
        If a value is of the wrong kind, out of range or not among the choices.

    Examples
    --------
    >>> Settings(rule="ia", epochs=3).batch_size
    64
    >>> Settings(epochs=-1)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: epochs: expected a number ≥ 0, got -1
    """

    rule: str = _setting("fa", "Rule that carries the error; `wtdiag rules` lists them.")
    coefficients: dict[str, Coefficient] = dataclasses.field(
        default_factory=dict,
        metadata={
            "help": "Coefficients or options of the rule.",
            "choices": (),
            "least": None,
        },
    )
    model: str = _setting("mlp", "mlp, conv, resnet8/20/32/44/56/110 or any torchvision classification model.")
    depth: int | None = _setting(None, "Weight layers of the model.", least=1)
    width: int | None = _setting(None, "Width of the model.", least=1)
    batch_norm: bool = _setting(True, "Batch normalisation in the model.")
    data: str = _setting("digits", "Data set; digits and glyphs need no files.")
    data_dir: str | None = _setting(None, "Folder of the data set's files.")
    download: bool = _setting(False, "Fetch the data set into --data-dir if it is not there.")
    image_size: int | None = _setting(None, "Side of the images in pixels, where there is a choice.", least=1)
    holdout: float = _setting(0.0, "Share of the training set to be tested on instead of the test set.", least=0)
    epochs: float = _setting(10.0, "Passes over the training set.", least=0)
    batch_size: int = _setting(64, "Examples per step.", least=2)
    seed: int = _setting(0, "Seed of initial weights, data order and all noise.", least=0)
    optimizer: str = _setting("sgd", "Optimiser of the forward weights.", choices=OPTIMIZERS)
    lr: float = _setting(0.05, "Learning rate of the forward weights.", least=0)
    momentum: float = _setting(0.9, "Momentum of SGD.", least=0)
    nesterov: bool = _setting(False, "Nesterov's form of momentum.")
    weight_decay: float = _setting(0.0, "Weight decay of the forward weights; adamw decouples it.", least=0)
    schedule: str = _setting("cosine", "Learning rate; step: ×0.1 at 1/3, 2/3 and 8/9.", choices=SCHEDULES)
    warmup: float = _setting(1.0, "Epochs of linear warm-up.", least=0)
    label_smoothing: float = _setting(0.0, "Label smoothing of the cross-entropy loss, from 0 to 1.", least=0)
    clip_norm: float | None = _setting(None, "Largest norm of the forward weights' gradient.", least=0)
    feedback_optimizer: str | None = _setting(
        None,
        "Optimiser of learned feedback weights; forward: the same one as for the forward weights.",
        choices=("forward", *OPTIMIZERS),
    )
    feedback_lr: float | None = _setting(None, "Learning rate of learned feedback weights.", least=0)
    feedback_momentum: float = _setting(0.0, "Momentum of SGD on learned feedback weights.", least=0)
    delay: float = _setting(0.0, "Epochs at the start in which the feedback weights alone learn.", least=0)
    alternate: int = _setting(0, "Task steps between two feedback steps; 0: both in each step.", least=0)
    update_noise: float = _setting(0.0, "Deviation of Gaussian noise on updates, times learning rate.", least=0)
    noise_on: str = _setting("both", "Which weights' updates are noisy.", choices=("forward", "feedback", "both"))
    device: str = _setting("auto", "auto, cpu, cuda or cuda:N.")
    precision: str = _setting("float32", "Arithmetic.", choices=("float32", "bfloat16", "float64"))
    snapshots: int = _setting(20, "Snapshots, spaced logarithmically from first to last step.", least=2)
    snapshot_every: int | None = _setting(None, "Also a snapshot every so many steps.", least=1)
    max_gb: float | None = _setting(None, "Disk space for snapshots, in GB; fewer are taken if need be.", least=0)
    probe_size: int = _setting(64, "Examples in the fixed batch that the signal probes use.", least=2)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, _hints()[field.name], getattr(self, field.name))
        for name in ("holdout", "label_smoothing", "momentum", "feedback_momentum"):
            if getattr(self, name) >= 1:
                raise InputError(f"{name}: expected a number below 1, got {getattr(self, name)!r}")
        check_one_of("rule", self.rule, RULES)
        self._check_that_all_is_used()
        self.rule_at(0.0, 0.0)

    def rule_at(self, progress: float, epoch: float) -> Rule:
        """Return the rule with the coefficients of a moment: ``progress`` from 0 to 1, ``epoch`` counted from 0."""
        values = {name: coefficient_schedule(name, value)(progress, epoch) for name, value in self.coefficients.items()}
        return build_rule(self.rule, **values)

    def _check_that_all_is_used(self) -> None:
        """Refuse what would be passed over in silence."""
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise InputError(f"nesterov: needs sgd with momentum, got {self.optimizer} with momentum={self.momentum:g}")
        rule = RULES[self.rule]
        if not rule.learned:
            for name in ("feedback_optimizer", "feedback_lr", "feedback_momentum", "delay", "alternate"):
                if getattr(self, name):
                    raise InputError(
                        f"{name}: {self.rule} has no learned feedback weights, got {getattr(self, name)!r}"
                    )
            if self.update_noise and self.noise_on == "feedback":
                raise InputError(f"noise_on: {self.rule} has no learned feedback weights, got 'feedback'")
        optimizer = self.feedback_optimizer or rule.recipe.optimizer
        if optimizer == "forward" and self.feedback_lr is not None:
            raise InputError(f"feedback_lr: {self.rule} takes the forward weights' steps; give feedback_optimizer too")
        if optimizer != "sgd" and self.feedback_momentum:
            raise InputError(f"feedback_momentum: is sgd's, but the feedback weights take {optimizer} steps")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, for config.json."""
        return dataclasses.asdict(self)


def from_mapping(settings: Mapping[str, Any], source: str) -> Settings:
    """Build settings from plain data; ``source`` names where they come from in errors.

    Raises
    ------
    InputError
        If a name is not known, or a value cannot be used.

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


def read_config(path: Path) -> dict[str, Any]:
    """Read settings from a TOML file, or from a run's own config.json.

    Raises
    ------
    InputError
        If the file is missing, of another kind, or cannot be parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            content = json.loads(text)
            settings = content.get("settings", content) if isinstance(content, dict) else None
            if not isinstance(settings, dict):
                raise InputError(f"config: {path} holds no settings")
            return settings
    except OSError as error:
        raise InputError(f"config: cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"config: {path} cannot be parsed: {error}") from None
    raise InputError(f"config: {path}: expected a .toml file or a run's config.json")


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Settings)


def _check(field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if value is None and type(None) in kinds:
        return
    kind = kinds[0]
    if field.name == "coefficients":
        if not isinstance(value, dict):
            raise InputError(f"coefficients: expected a table of NAME = VALUE, got {value!r}")
        return
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{field.name}: expected {_NAMES[kind]}, got {value!r}")
    least = field.metadata["least"]
    if least is not None and not (value >= least and math.isfinite(value)):
        raise InputError(f"{field.name}: expected a number ≥ {least:g}, got {value!r}")
    if field.metadata["choices"]:
        check_one_of(field.name, value, field.metadata["choices"])


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
