"""``wtdiag rules``, ``wtdiag probes`` and ``wtdiag findings``: all entries of a registry, or more about a few."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

import click

from wtdiag.cli.terminal import print_entry
from wtdiag.probes.errors import check_one_of
from wtdiag.probes.records.config import as_typed

T = TypeVar("T")

_names = click.argument("names", nargs=-1, metavar="[NAME]...")


@click.command("rules")
@_names
def rules(names: tuple[str, ...]) -> None:
    """List the rules with their equations, coefficients and references, or say more about those that are named.

    \b
    wtdiag rules
    wtdiag rules ia kp
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.trainers.rules import RULES

    for name, rule in _chosen("rule", names, RULES).items():
        fields = dataclasses.fields(rule)
        if not names:
            listed = ", ".join(f"{field.name}={as_typed(field.default)}" for field in fields)
            print_entry(name, rule.title, rule.equation, listed, rule.reference)
            continue
        recipe = rule.recipe
        own = rule.learned and recipe.optimizer != "forward"
        print_entry(
            name,
            rule.title,
            rule.equation,
            *_sentences(rule),
            *(f"coefficient {field.name}: by default {as_typed(field.default)}{_more(field)}" for field in fields),
            f"optimiser of B: {recipe.optimizer}, by default with a learning rate of {recipe.lr:g}" if own else "",
            "optimiser of B: that of W, with the same learning rate" if rule.learned and not own else "",
            f"learning rate of W: by default {recipe.forward_lr:g}, {recipe.convolutional_lr:g} in convolutional "
            "networks with batch norm",
            f"FLOPs of a step: at least {rule.flops} of those of backpropagation" if rule.flops else "",
            rule.reference,
        )


@click.command("probes")
@_names
def probes(names: tuple[str, ...]) -> None:
    """List the probes and all other measures with their equations, or say more about those that are named.

    \b
    wtdiag probes
    wtdiag probes weight_angle step_size_number
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.diagnostics.analysis.derive import DERIVED
    from wtdiag.diagnostics.analysis.reading import known

    for name, measure in _chosen("probe", names, known()).items():
        sources = f"derived from {', '.join(DERIVED[name].sources)}" if name in DERIVED else ""
        low, high = measure.bounds
        more = (
            "about the signals at the layer" if measure.subject == "signal" else f"about the {measure.subject} weights",
            f"between {low:g} and {high:g}",
            "" if measure.neutral is None else f"neutral at {measure.neutral:g}",
            "" if measure.limit is None else f"something is wrong above {measure.limit:g}",
            f"predicts {measure.predicts}" if measure.predicts else "",
        )
        print_entry(
            name,
            f"{measure.long_name} [{measure.units}]",
            measure.equation,
            sources,
            *(more if names else ()),
            measure.reference,
        )


@click.command("findings")
@_names
def findings(names: tuple[str, ...]) -> None:
    """List the kinds of findings and what they mean, or say how those that are named are seen and what helps.

    \b
    wtdiag findings
    wtdiag findings not-aligning
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.diagnostics.findings.kinds import KINDS
    from wtdiag.diagnostics.findings.thresholds import RECORDS, THRESHOLDS

    for name, kind in _chosen("finding", names, KINDS).items():
        limits = (each for each in THRESHOLDS.values() if each.kind == name)
        record = RECORDS.get(name)
        more = (
            f"looks for: {_sentences(kind.detect)[0].removeprefix('Find ')}",
            f"measures: {', '.join(kind.needs)}" if kind.needs else "",
            *(f"threshold {each.value:g}{_unit(each.units)}: {each.guards}" for each in limits),
            f"causes: {', '.join(sorted(kind.effects))}" if kind.effects else "",
            *(f"advice: {remedy if isinstance(remedy, str) else _sentences(remedy)[0]}" for remedy in kind.remedies),
            f"measured: right in {record.right} of {_runs(record.named)} where it came first; {_runs(record.planted)} "
            "had this fault"
            if record
            else "measured: never",
        )
        print_entry(name, "", kind.meaning, kind.equation, *(more if names else ()), kind.reference)


def _chosen(argument: str, names: tuple[str, ...], registry: Mapping[str, T]) -> Mapping[str, T]:
    """Return the entries that are named, all if none is."""
    for name in names:
        check_one_of(argument, name, registry)
    return {name: registry[name] for name in names} or registry


def _sentences(described: Any) -> list[str]:
    """Return the paragraphs of a docstring, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in (inspect.getdoc(described) or "").split("\n\n")]


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _unit(units: str) -> str:
    return "" if units == "1" else f" {units}"


def _more(field: dataclasses.Field[Any]) -> str:
    choices = field.metadata.get("choices")
    about = field.metadata.get("about")
    return (f"; one of {', '.join(choices)}" if choices else "") + (f"; {about}" if about else "")
