"""How findings, comparisons and entries of a registry are printed, no wider than 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pandas as pd

    from wtdiag.diagnostics.findings.finding import Finding


def print_findings(findings: Iterable[Finding]) -> None:
    """Print the first finding of each kind and severity, and in how many other places there are such."""
    from wtdiag.diagnostics.comparison.tables import plain

    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    for (severity, kind), (first, *others) in kinds.items():
        when = f"step {first.first_step}"
        if first.last_step != first.first_step:
            when = f"steps {first.first_step} to {first.last_step}"
        head = kind if severity == "none" else f"{severity}: {kind}"
        also = f" Also in {', '.join(other.layer or 'all layers' for other in others)}." if others else ""
        where = f"{first.layer or 'all layers'}, {when}"
        print_entry(head, plain(where), plain(first.summary + also))


def print_comparison(table: pd.DataFrame) -> None:
    """Print a comparison, and why each run that is left out of it is."""
    from rich.console import Console

    from wtdiag.diagnostics.comparison.tables import WIDTH, comparison_tables

    console = Console()
    for shown in comparison_tables(table):
        console.print(shown, width=min(WIDTH, console.width))
    for run, reason in table.attrs["unpaired"].items():
        click.echo(f"wtdiag: {run} is not compared: {reason}", err=True)


def print_entry(name: str, title: str, *lines: str) -> None:
    """Print a name in bold with its title, and the other lines indented below it."""
    # Slugs and equations are not broken at their hyphens.
    head = textwrap.fill(f"{name}  {title}", 80, subsequent_indent="      ", break_on_hyphens=False)
    click.echo(click.style(name, bold=True) + head[len(name) :])
    for line in filter(None, lines):
        click.echo(textwrap.fill(line, 80, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False))
