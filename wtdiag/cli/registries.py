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
    """List the probes with their units, equations and references."""
    from wtdiag.probes import PROBES

    for name, probe in PROBES.items():
        print_entry(name, f"{probe.long_name} [{probe.units}]", probe.equation, probe.reference)
