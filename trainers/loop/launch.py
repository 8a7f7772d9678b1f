"""The runs that a command asks for: their folders and settings, and whether they are resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import Coefficient, as_typed, settings_with_role
from wtdiag.probes.records.schema import CONFIG, read_json
from wtdiag.trainers.config.settings import DEFAULTS, Settings, from_mapping, read_config
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.base import Recipe


def check_modes(*, resume: bool, force: bool) -> None:
    """Require that a run is not to be both resumed and replaced.

    Raises
    ------
    InputError
        If both are asked for.

    Examples
    --------
    >>> check_modes(resume=True, force=True)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: resume, force: expected one of them, got both; the first continues a run, ...
    """
    if resume and force:
        raise InputError(
            "resume, force: expected one of them, got both; the first continues a run, the second replaces it"
        )


def parse_coefficients(words: Sequence[str]) -> dict[str, Coefficient]:
    """Parse words of the form NAME=VALUE; a VALUE that is not a number stays text.

    Raises
    ------
    InputError
        If a word has no name or no value.

    Examples
    --------
    >>> parse_coefficients(["amp=0.1", "decay=linear:0.1:0", "inputs=noise"])
    {'amp': 0.1, 'decay': 'linear:0.1:0', 'inputs': 'noise'}
    """
    result: dict[str, Coefficient] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise InputError(f"coefficient: expected NAME=VALUE, got {word!r}")
        try:
            result[name] = float(value)
        except ValueError:
            result[name] = value
    return result


def runs_to_train(
    rules: Sequence[str],
    given: Mapping[str, Any],
    *,
    config: Path | None = None,
    out: Path | None = None,
    resume: bool = False,
) -> dict[Path, Settings]:
    """Return the settings of each run by its folder, which is ``out`` for one rule, and a folder below it for several.

    Parameters
    ----------
    rules
        Names of rules. If there are none, those of the config file are used, or else feedback alignment.
    given
        Settings that were given one by one. Each overrides that of the config file, as does each of its coefficients.
    config
        A file of settings. Its coefficients apply to the rules that it names, or to any rule if it names none.
    out
        The folder; by default a folder below ``runs``.
    resume
        Whether runs that exist are resumed, with their own settings.

    Raises
    ------
    InputError
        If a setting cannot be used, or differs from that of a run to be resumed; or if there is no run to resume, and
        neither a rule nor a config file describes a new one.

    Examples
    --------
    >>> {path.as_posix(): s.rule for path, s in runs_to_train(["fa", "bp"], {"lr": 0.1}, out=Path("x")).items()}
    {'x/fa': 'fa', 'x/bp': 'bp'}
    """
    file = read_config(config) if config else {}
    unnamed = not rules and "rule" not in file and "rule" not in given
    if resume and out is not None and unnamed:
        paths = [out] if (out / CONFIG).exists() else sorted(path.parent for path in out.glob(f"*/{CONFIG}"))
        if paths:
            return {path: stored(path, _joined(file, given)) for path in paths}
        if config is None:
            raise _no_run(out)
    listed = given.get("rule", file.get("rule", "fa"))
    source = str(config or "command line") + " and command line" * bool(config and (rules or given))
    names = list(dict.fromkeys(rules)) or named_rules(listed, source)
    runs = {}
    for name in names:
        wanted = _joined(file, given, name) | {"rule": name}
        settings = from_mapping(wanted, source)
        single = out or Path("runs", f"{name}-{settings.model}-{settings.data}-{settings.seed}")
        path = single if len(names) == 1 else (out or Path("runs")) / name
        exists = resume and (path / CONFIG).exists()
        if resume and unnamed and config is None and not exists:
            raise _no_run(path)
        runs[path] = stored(path, wanted) if exists else settings
    return runs


def named_rules(value: Any, source: str) -> list[str]:
    """Return the different rules that a setting names, which is a name or a list of names; messages name ``source``.

    Raises
    ------
    InputError
        If it is something else.

    Examples
    --------
    >>> named_rules("fa", "my.toml"), named_rules(["fa", "bp", "fa"], "my.toml")
    (['fa'], ['fa', 'bp'])
    """
    words = _listed(value)
    if not words or not all(isinstance(word, str) for word in words):
        raise InputError(f"{source}: rule: expected a name or a list of names, got {value!r}")
    return list(dict.fromkeys(words))


def status(run: Path) -> str:
    """Return the status of a run directory, "none" if there is no run yet."""
    return str(read_json(run / CONFIG).get("status", "running")) if (run / CONFIG).exists() else "none"


def stored(path: Path, wanted: Mapping[str, Any]) -> Settings:
    """Return the settings of an existing run, if they agree with those that are wanted.

    Raises
    ------
    InputError
        If they do not, or the run has no settings.
    """
    recorded, movable = read_config(path / CONFIG, follow=False), settings_with_role("location")
    for name, value in wanted.items():
        theirs = recorded.get(name, DEFAULTS.get(name))
        if name == "coefficients" and isinstance(theirs, dict) and isinstance(value, dict):
            theirs = {each: theirs[each] for each in value if each in theirs}
        is_default = name == "lr" and value is None and theirs in _default_rates(recorded.get("rule"))
        if name not in movable and theirs != value and not is_default:
            raise InputError(
                f"resume: {path} was made with {name}={as_typed(theirs)}, not {as_typed(value)}; leave {name} out, or "
                "start another run"
            )
    moved = {name: value for name, value in wanted.items() if name in movable}
    return from_mapping(recorded | moved, str(path / CONFIG))


def _default_rates(rule: Any) -> tuple[float, ...]:
    """Return the learning rates that a run without one may have."""
    recipe = RULES[rule].recipe if isinstance(rule, str) and rule in RULES else Recipe()
    return recipe.forward_lr, recipe.convolutional_lr


def _joined(file: Mapping[str, Any], given: Mapping[str, Any], rule: str = "") -> dict[str, Any]:
    """Return the settings of the file, overridden by those given; coefficients of this rule are overridden one by one.

    Coefficients of other rules are left out, because a name that two rules share does not mean the same in both.
    """
    file = dict(file)
    if "rule" in file and rule not in _listed(file["rule"]):
        file.pop("coefficients", None)
    theirs, mine = file.get("coefficients"), given.get("coefficients")
    joined = {"coefficients": theirs | mine} if isinstance(theirs, dict) and isinstance(mine, dict) else {}
    return {**file, **given, **joined}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _no_run(path: Path) -> InputError:
    return InputError(f"resume: {path} holds no run; expected a run directory, or the rule of a new run")
