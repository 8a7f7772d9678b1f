"""Which runs can be held against which: those that differ in nothing but the way their errors are carried."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wtdiag.probes.errors import check_one_of
from wtdiag.probes.records.config import settings_with_role
from wtdiag.probes.records.rundir import RECORDED
from wtdiag.probes.records.schema import Run


@dataclass(frozen=True)
class ComparedRun:
    """One run among those that are compared.

    Attributes
    ----------
    run : Run
        The run.
    rule : str
        Name of its rule.
    variant : dict
        The rule's coefficients, and how its feedback learns.
    conditions : dict
        All settings that runs have to share to be paired, but for the seed.
    seed
        Its seed.
    """

    run: Run
    rule: str
    variant: dict[str, Any]
    conditions: dict[str, Any]
    seed: Any

    @property
    def name(self) -> str:
        """Path of the run."""
        return str(self.run.path)

    @property
    def method(self) -> str:
        """Key of rule and variant."""
        return key([self.rule, self.variant])

    @property
    def pair(self) -> str:
        """Key of conditions and seed."""
        return key([self.conditions, self.seed])

    @property
    def diverged(self) -> bool:
        """Whether the run diverged."""
        return self.run.config.get("status") == "diverged"


@dataclass(frozen=True)
class PairedRuns:
    """Pairs of a run and the reference's run, and why the other runs are in none, by path."""

    pairs: list[tuple[ComparedRun, ComparedRun]]
    unpaired: dict[str, str]


def pair(runs: Iterable[Run], reference: str | None = None) -> PairedRuns:
    """Pair each run with the one of a reference rule that has the same settings and seed.

    Raises
    ------
    InputError
        If the reference is no run's rule.
    """
    entries, unpaired = _entries(runs)
    rules = list(dict.fromkeys(entry.rule for entry in entries))
    if reference is None:
        reference = "bp" if "bp" in rules or not rules else rules[0]
    elif rules:
        check_one_of("reference", reference, rules)
    own = [entry for entry in entries if entry.rule == reference]
    # Of several variants of the reference rule, the first under the same conditions.
    variant = {key(entry.conditions): entry.method for entry in reversed(own)}
    references = {entry.pair: entry for entry in own if entry.method == variant[key(entry.conditions)]}
    described = [(_description(entry), entry) for entry in references.values()]
    pairs = []
    for entry in entries:
        other = references.get(entry.pair)
        if other is None:
            unpaired[entry.name] = _why(entry, reference, described)
        elif other is not entry:
            pairs.append((entry, other))
    used = {entry.name for both in pairs for entry in both}
    alone = [entry.name for entry in references.values() if entry.name not in used]
    return PairedRuns(pairs, unpaired | dict.fromkeys(alone, "no other run has its settings and seed"))


def compared_run(run: Run) -> ComparedRun | None:
    """Return a run as `pair` sees it; None if its settings are not recorded with a seed, or it has not ended."""
    return next(iter(_entries([run])[0]), None)


def method_names(entries: Iterable[ComparedRun]) -> dict[str, str]:
    """Name each method by its rule, and where there are several variants of one, by what sets them apart."""
    variants = {entry.method: entry for entry in entries}
    of_rule: dict[str, list[dict[str, Any]]] = {}
    for entry in variants.values():
        of_rule.setdefault(entry.rule, []).append(entry.variant)
    apart = {rule: differing(every) for rule, every in of_rule.items()}
    return {
        method: " ".join([entry.rule, *_words(entry.variant, apart[entry.rule])]) for method, entry in variants.items()
    }


def condition_names(conditions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Name conditions by model, depth and data, and by what else sets them apart; by their `key`."""
    every = {key(each): each for each in conditions}
    apart = [name for name in differing(list(every.values())) if name not in ("model", "depth", "data")]
    names = {}
    for each, settings in every.items():
        words = [str(settings.get("model", "own model"))]
        words += [f"depth {settings['depth']}"] if settings.get("depth") is not None else []
        words += [str(settings["data"])] if "data" in settings else []
        names[each] = ", ".join(words + _words(settings, apart))
    return names


def differing(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values are not the same in all.

    Examples
    --------
    >>> differing([{"lr": 0.1, "depth": 4}, {"lr": 0.2, "depth": 4}])
    ['lr']
    """
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return [name for name in names if len({key(mapping.get(name)) for mapping in mappings}) > 1]


def key(value: Any) -> str:
    """Return plain data in a form that can be compared and hashed."""
    return json.dumps(value, sort_keys=True)


def _entries(runs: Iterable[Run]) -> tuple[list[ComparedRun], dict[str, str]]:
    entries: dict[tuple[str, str], ComparedRun] = {}
    unpaired: dict[str, str] = {}
    for run in runs:
        settings, status = run.config.get("settings"), run.config.get("status")
        if not isinstance(settings, dict) or "seed" not in settings:
            unpaired[str(run.path)] = "has no settings with a seed in its config.json"
        elif status not in ("finished", "diverged", RECORDED):
            unpaired[str(run.path)] = f"is not finished, but {status}"
        else:
            entry = _entry(run, settings)
            first = entries.setdefault((entry.pair, entry.method), entry)
            if first is not entry and first.name != entry.name:
                unpaired[entry.name] = f"has rule, settings and seed of {first.name}"
    return list(entries.values()), unpaired


def _entry(run: Run, settings: Mapping[str, Any]) -> ComparedRun:
    rule = run.config.get("rule")
    rule = dict(rule) if isinstance(rule, dict) else {}
    name = str(rule.pop("name", settings.get("rule", "unknown")))
    given = settings.get("coefficients")  # a schedule is whole here, and in the rule no more than its first value
    variant = rule | (given if isinstance(given, dict) else {})
    # How a rule's feedback learns is the rule's own affair; one without learned feedback has none of it.
    variant |= {setting: settings[setting] for setting in sorted(settings.keys() & settings_with_role("feedback"))}
    own = {"seed", *settings_with_role("method", "feedback", "location", "recording")}
    conditions = {setting: value for setting, value in settings.items() if setting not in own}
    for noise, none in (("update_noise", 0.0), ("relative_noise", None)):
        if settings.get("noise_on") == "feedback" and noise in conditions:
            variant[noise], conditions[noise] = conditions[noise], none
    return ComparedRun(run, name, variant, conditions, settings["seed"])


Described = frozenset[tuple[str, str]]


def _description(entry: ComparedRun) -> Described:
    """Return the settings that runs have to share, each as its `key`; one of None is like one that is missing."""
    shared = entry.conditions | {"seed": entry.seed}
    return frozenset((name, key(value)) for name, value in shared.items() if value is not None)


def _why(entry: ComparedRun, reference: str, references: Sequence[tuple[Described, ComparedRun]]) -> str:
    """Say what sets a run apart from the reference that is most like it."""
    wanted = f"no run of {reference} has its settings and seed"
    if not references:
        return wanted
    own = _description(entry)
    _, nearest = min(references, key=lambda each: len({name for name, _ in own ^ each[0]}))
    apart = differing([each.conditions | {"seed": each.seed} for each in (entry, nearest)])
    return f"{wanted}; {nearest.name} differs in {', '.join(apart)}"


def _words(settings: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{name}={_text(settings.get(name))}" for name in names]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
