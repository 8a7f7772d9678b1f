"""The parameters of each method: rules differ in their coefficients, and some have no feedback that learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.studies.file.plan import joined
from wtdiag.studies.file.space import SEARCHABLE, Range, Space, Value, coefficients_of, every_coefficient
from wtdiag.trainers.config.settings import Settings, from_mapping
from wtdiag.trainers.rules import RULES


def searched(methods: Mapping[str, Mapping[str, Any]], space: Space) -> dict[str, Space]:
    """Return the space of each method: those parameters of the whole space that the method has.

    Methods are given with all their settings. A rule has a parameter if it can be set with that rule. Backpropagation,
    for example, has no coefficients and no learning rate of feedback weights.

    Raises
    ------
    InputError
        If the settings of a method or an end of a range cannot be used, or no rule has a parameter.

    Examples
    --------
    >>> from wtdiag.studies.file.space import parse_search
    >>> methods = {"bp": {"rule": "bp"}, "sa": {"rule": "sa"}}
    >>> {label: list(own) for label, own in searched(methods, parse_search(["lr=0.1,0.2", "self=0.1,0.2"])).items()}
    {'bp': ['lr'], 'sa': ['lr', 'self']}
    """
    for label, method in methods.items():
        from_mapping(method, label)
    spaces: dict[str, dict[str, Range]] = {label: {} for label in methods}
    for name, given in space.items():
        allowed = _of_kind(name, given)
        problem: InputError | None = None
        first, *others = allowed.choices or allowed.points(2)
        for label, method in methods.items():
            try:
                _try(method, name, first)
            except InputError as error:
                if name in (*SEARCHABLE, *coefficients_of(method.get("rule", Settings.rule))):
                    problem = error
                continue
            for value in others:
                _try(method, name, value)
            spaces[label][name] = allowed
        if not any(name in own for own in spaces.values()):
            having = [rule for rule in RULES if name in coefficients_of(rule)]
            raise problem or InputError(
                f"search: {name!r} is not a coefficient of {', '.join(_rules(methods))}; "
                f"rules that have it: {', '.join(having)}"
            )
    return dict(spaces)


def divided(
    rules: Sequence[str], values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], list[str]]:
    """Divide settings and coefficients among rules, so that each rule gets those that it has.

    Returns
    -------
    settings, methods, left_out
        The settings that all rules share; by rule, its further settings; and a sentence for each setting that a rule
        lacks.

    Raises
    ------
    InputError
        If no rule has a setting or coefficient, or the value cannot be used.

    Examples
    --------
    >>> divided(["bp", "sa"], {"lr": 0.1, "coefficients": {"self": 0.2}})[:2]
    ({'lr': 0.1}, {'bp': {'rule': 'bp'}, 'sa': {'rule': 'sa', 'coefficients': {'self': 0.2}}})
    """
    values = {**values, **values.get("coefficients", {})}
    values.pop("coefficients", None)
    for rule in rules:
        check_one_of("rule", rule, RULES)
    order = [field.name for field in dataclasses.fields(Settings) if field.name not in ("rule", "coefficients")]
    order += every_coefficient()
    for name in values:
        check_one_of("setting", name, list(dict.fromkeys(order)))
    shared: dict[str, Any] = {}
    methods: dict[str, dict[str, Any]] = {rule: {"rule": rule} for rule in rules}
    left_out = []
    for name in sorted(values, key=order.index):
        lacking: dict[str, InputError] = {}
        for rule, own in methods.items():
            try:
                from_mapping(joined(shared, own, {name: values[name]}), "settings")
            except InputError as error:
                lacking[rule] = error
        if len(lacking) == len(methods):
            raise list(lacking.values())[-1]
        if not lacking:
            shared[name] = values[name]
            continue
        for rule in rules:
            if rule in lacking:
                left_out.append(f"{rule} has no {name}, so it is trained without it")
            else:
                methods[rule] = joined(methods[rule], {name: values[name]})
    return shared, methods, left_out


def _of_kind(name: str, given: Range) -> Range:
    """Return the range, restricted to whole numbers if the parameter takes no others."""
    hint = get_type_hints(Settings).get(name)
    whole = not given.choices and int in (hint, *get_args(hint))
    if whole and not (float(given.low).is_integer() and float(given.high).is_integer()):
        raise InputError(f"search: {name}: expected whole numbers, got {given.low:g} and {given.high:g}")
    return dataclasses.replace(given, whole=whole)


def _try(settings: Mapping[str, Any], name: str, value: Value) -> None:
    from_mapping(joined(settings, {name: value}), "search")


def _rules(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(method.get("rule", Settings.rule) for method in methods.values()))
