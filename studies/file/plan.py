"""The study file: which runs to train, what to search and transfer, and which claims to decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.files import read_toml
from wtdiag.studies.file.space import Range, parse_space
from wtdiag.trainers.config.settings import DEFAULTS, Settings, from_mapping
from wtdiag.trainers.rules import RULES

BUILT_IN = Path(__file__).parents[1]
"""Folder of the studies that come with wtdiag, in a folder for each of `SCALES`."""
SCALES = ("small", "medium", "full")
"""Scales of these studies: for minutes on two cores, a day on a GPU, and the papers' own training."""
Level = str | int | float | bool


@dataclass(frozen=True)
class GridPlan:
    """All combinations of the levels of some factors.

    Attributes
    ----------
    settings : dict
        The settings that its cells share, in addition to those of the study.
    factors : dict
        By the name of a factor, its levels and the settings of each.
    """

    settings: dict[str, Any]
    factors: dict[str, dict[Level, dict[str, Any]]]


@dataclass(frozen=True)
class SweepPlan:
    """The methods, space and budget of a search; see `studies.parts.sweep.Sweep`."""

    name: str
    rules: tuple[str, ...]
    search: dict[str, Range]
    settings: dict[str, Any] = field(default_factory=dict)
    trials: int = 30
    sampler: str = "tpe"
    seed: int = 0
    prune: bool = True
    map: tuple[str, str] | None = None


@dataclass(frozen=True)
class TunePlan:
    """A search before the comparison, with the same budget for every method and each level of the factors ``per``."""

    search: dict[str, Range]
    settings: dict[str, Any] = field(default_factory=dict)
    per: tuple[str, ...] = ()
    trials: int = 6
    sampler: str = "grid"
    seed: int = 1000


@dataclass(frozen=True)
class TransferPlan:
    """The best settings of a sweep, on other architectures; see `studies.parts.transfer.Transfer`."""

    name: str
    sweep: str
    to: dict[str, dict[str, Any]]
    top: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Plan:
    """A study file, read and checked.

    Attributes
    ----------
    name : str
        Name of the file without its ending.
    title, about : str
        Title and description in the report.
    settings : dict
        Settings that all runs share.
    methods : dict
        By the label of a method, its settings; "bp" is always among them.
    probes : tuple of str
        Names of the measures of each cell of the grids.
    grids, tune, sweeps, transfers
        The parts of the study.
    claims : tuple of str
        Names of the claims to decide.
    text : str
        The text of the file.
    """

    name: str
    title: str
    about: str
    settings: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    probes: tuple[str, ...]
    grids: tuple[GridPlan, ...]
    tune: TunePlan | None
    sweeps: tuple[SweepPlan, ...]
    transfers: tuple[TransferPlan, ...]
    claims: tuple[str, ...]
    text: str


def joined(settings: Mapping[str, Any], *more: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings updated with other values; names that are not settings are coefficients of the rule.

    Raises
    ------
    InputError
        If coefficients are not a mapping.

    Examples
    --------
    >>> joined({"rule": "ia", "lr": 0.1}, {"lr": 0.2, "amp": 0.04})
    {'rule': 'ia', 'lr': 0.2, 'coefficients': {'amp': 0.04}}
    """
    result = {**settings}
    for values in more:
        coefficients: dict[str, Any] = {}
        for given in (result.get("coefficients", {}), values.get("coefficients", {})):
            if not isinstance(given, Mapping):
                raise InputError(f"coefficients: expected a table of names and values, got {given!r}")
            coefficients |= given
        coefficients |= {name: value for name, value in values.items() if name not in DEFAULTS}
        result |= {name: value for name, value in values.items() if name in DEFAULTS}
        if coefficients:
            result["coefficients"] = coefficients
    return result


def built_in() -> dict[str, Path]:
    """Return the studies that come with wtdiag, by name.

    Examples
    --------
    >>> "small/two-routes" in built_in()
    True
    """
    files = [file for scale in SCALES for file in sorted(BUILT_IN.glob(f"{scale}/*.toml"))]
    return {f"{file.parent.name}/{file.stem}": file for file in files}


def read_plan(name: str) -> Plan:
    """Read a study file, or the built-in study of that name.

    Raises
    ------
    InputError
        If there is no such study, or its file cannot be parsed or used.
    """
    path = built_in().get(name, Path(name))
    if not path.exists():
        raise InputError(
            f"study: {name!r} is neither a file nor a study that comes with wtdiag; those are {', '.join(built_in())}"
        )
    try:
        content, text = read_toml(path)
    except InputError as error:
        raise InputError(f"study: {error}") from error
    try:
        return _plan(path.stem, content, text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _plan(name: str, content: dict[str, Any], text: str) -> Plan:
    known = ("title", "about", "settings", "rules", "probes", "tune", "grid", "sweep", "transfer", "claims")
    _check_names("study", content, known)
    settings = _table("settings", content.get("settings", {}))
    methods = {
        label: {"rule": label, **_table(f"rules.{label}", given)} for label, given in content.get("rules", {}).items()
    }
    methods = {"bp": {"rule": "bp"}, **methods}
    grids = tuple(_grid(i, table) for i, table in enumerate(_list("grid", content)))
    sweeps = tuple(_sweep(table) for table in _list("sweep", content))
    transfers = tuple(_transfer(table) for table in _list("transfer", content))
    for label in (*_rules_of(settings, grids), *(label for sweep in sweeps for label in sweep.rules)):
        if label not in methods:
            check_one_of("rule", label, (*methods, *RULES))
            methods[label] = {"rule": label}
    for label, method in methods.items():
        from_mapping(joined(settings, method), f"rules.{label}")
    _check_unique("sweep", sweeps)
    _check_unique("transfer", transfers)
    for transfer in transfers:
        check_one_of(f"transfer {transfer.name}: sweep", transfer.sweep, [sweep.name for sweep in sweeps])
    plan = Plan(
        name=name,
        title=str(content.get("title", name)),
        about=str(content.get("about", "")),
        settings=settings,
        methods=methods,
        probes=_words("probes", content.get("probes", [])),
        grids=grids,
        tune=_tune(content["tune"]) if "tune" in content else None,
        sweeps=sweeps,
        transfers=transfers,
        claims=_words("claims", content.get("claims", [])),
        text=text,
    )
    if not (grids or sweeps):
        raise InputError("study: there is nothing to train; expected at least one [[grid]] or [[sweep]]")
    return plan


def _grid(index: int, given: Any) -> GridPlan:
    where = f"grid {index + 1}"
    given = _table(where, given)
    _check_names(where, given, ("settings", "factors"))
    factors = {
        name: _levels(f"{where}: factor {name}", name, levels)
        for name, levels in _table(f"{where}: factors", given.get("factors", {})).items()
    }
    return GridPlan(_table(f"{where}: settings", given.get("settings", {})), factors)


def _levels(where: str, name: str, given: Any) -> dict[Level, dict[str, Any]]:
    if isinstance(given, dict):
        return {
            int(label) if label.isdecimal() else label: _table(f"{where}: {label}", values)
            for label, values in given.items()
        }
    if not isinstance(given, list) or not given or not all(isinstance(level, Level) for level in given):
        raise InputError(f"{where}: expected a list of levels, or a table of named ones, got {given!r}")
    if len(set(given)) < len(given):
        raise InputError(f"{where}: a level is given twice in {given!r}")
    return {level: {name: level} for level in given}


def _sweep(given: Any) -> SweepPlan:
    name, values = _named("sweep", given, SweepPlan)
    return SweepPlan(**_search(f"sweep {name}", values))


def _tune(given: Any) -> TunePlan:
    values = _table("tune", given)
    _check_names("tune", values, [key.name for key in dataclasses.fields(TunePlan)])
    return TunePlan(**_search("tune", values))


def _search(where: str, values: dict[str, Any]) -> dict[str, Any]:
    values["search"] = parse_space(_table(f"{where}: search", values.get("search", {})))
    values["settings"] = _table(f"{where}: settings", values.get("settings", {}))
    for name, kind in (("trials", int), ("seed", int), ("prune", bool)):
        if name in values and type(values[name]) is not kind:
            wanted = "a whole number" if kind is int else "true or false"
            raise InputError(f"{where}: {name}: expected {wanted}, got {values[name]!r}")
    for name in ("rules", "per", "map"):
        if name in values:
            values[name] = _words(f"{where}: {name}", values[name])
    if len(values.get("map", (1, 2))) != 2:
        raise InputError(f"{where}: map: expected the names of two parameters, got {list(values['map'])!r}")
    if not values["search"]:
        raise InputError(f"{where}: search: expected at least one parameter with its range, got none")
    return values


def _transfer(given: Any) -> TransferPlan:
    name, values = _named("transfer", given, TransferPlan)
    to = _table(f"transfer {name}: to", values.get("to", {}))
    values["to"] = {label: _table(f"transfer {name}: to: {label}", settings) for label, settings in to.items()}
    seeds = values.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise InputError(f"transfer {name}: seeds: expected a list of whole numbers, got {seeds!r}")
    if type(top := values.get("top", 1)) is not int or top < 1:
        raise InputError(f"transfer {name}: top: expected a positive whole number, got {top!r:.60}")
    values["seeds"] = tuple(seeds)
    if not values["to"] or "sweep" not in values:
        raise InputError(f"transfer {name}: expected the name of a sweep and at least one target architecture")
    return TransferPlan(**values)


def _named(what: str, given: Any, kind: type) -> tuple[str, dict[str, Any]]:
    values = _table(what, given)
    _check_names(what, values, [key.name for key in dataclasses.fields(kind)])
    name = values.get("name")
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise InputError(f"{what}: name: expected a word that can name a folder, got {name!r}")
    return name, values


def _rules_of(settings: Mapping[str, Any], grids: Iterable[GridPlan]) -> list[str]:
    """Return the labels of all methods of the grids."""
    labels: list[str] = []
    for grid in grids:
        levels = grid.factors.get("rule")
        labels += map(str, levels) if levels else [str({**settings, **grid.settings}.get("rule", Settings().rule))]
    return list(dict.fromkeys(labels))


def _check_unique(what: str, parts: tuple[SweepPlan, ...] | tuple[TransferPlan, ...]) -> None:
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise InputError(f"{what}: a name is given twice among {', '.join(names)}")


def _check_names(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in given:
        check_one_of(f"{where}: entry", name, list(known))


def _table(where: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InputError(f"{where}: expected a table, got {given!r}")
    return dict(given)


def _list(name: str, content: Mapping[str, Any]) -> list[Any]:
    given = content.get(name, [])
    if not isinstance(given, list):
        raise InputError(f"{name}: expected [[{name}]], a list of tables, got {given!r:.60}")
    return given


def _words(where: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, (list, tuple)) or not all(isinstance(word, str) for word in given):
        raise InputError(f"{where}: expected a list of names, got {given!r}")
    return tuple(given)
