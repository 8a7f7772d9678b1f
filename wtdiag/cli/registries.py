"""``wtdiag rules`` and ``wtdiag probes``."""

from __future__ import annotations

import dataclasses

import click

from wtdiag.cli.terminal import print_entry


@click.command("rules")
def rules() -> None:
    """List the rules with their equations, coefficients and references."""
    from wtdiag.trainers.rules import RULES

    for name, rule in RULES.items():
        fields = [f"{field.name}={field.default}" for field in dataclasses.fields(rule)]
        print_entry(name, rule.title, rule.equation, ", ".join(fields), rule.reference)


@click.command("probes")
def probes() -> None:
    """List the probes and all other measures, with their units, equations, sources and references."""
    from wtdiag.diagnostics.analysis.derive import DERIVED
    from wtdiag.diagnostics.analysis.reading import known

    for name, measure in known().items():
        sources = f"derived from {', '.join(DERIVED[name].sources)}" if name in DERIVED else ""
        print_entry(name, f"{measure.long_name} [{measure.units}]", measure.equation, sources, measure.reference)
