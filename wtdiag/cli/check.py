"""``wtdiag check``."""

from __future__ import annotations

import click

from wtdiag.cli.terminal import say


@click.command("check")
@click.argument("rule", metavar="RULE|MODULE:CLASS")
@click.option(
    "--coefficient", "-c", "coefficients", multiple=True, metavar="NAME=VALUE", help="Coefficient of the rule."
)
@click.pass_context
def check(context: click.Context, rule: str, coefficients: tuple[str, ...]) -> None:
    """Check that a rule does what it says, and that its error path does not see W.

    RULE is a name that `wtdiag rules` lists, or a class in a module of your own. Each check trains small networks of
    dense and convolutional layers by the rule. Exit code 1 if a check fails.

    \b
    wtdiag check kp
    wtdiag check sum -c amp=0.1 -c decay=0.1
    wtdiag check my_rules:MyRule
    """  # noqa: D301  (click wants the character itself)
    from rich.table import Table

    from wtdiag.cli.console import Screen
    from wtdiag.diagnostics.comparison.tables import WIDTH
    from wtdiag.trainers.conformance.conform import conform
    from wtdiag.trainers.conformance.named import rule_named
    from wtdiag.trainers.conformance.requirements import FAILED
    from wtdiag.trainers.loop.launch import parse_coefficients

    built = rule_named(rule, parse_coefficients(coefficients))
    say(repr(built))
    with Screen(stderr=True).status(f"checks {built.name}"):
        verdicts = list(conform(built))
    table = Table(
        "check", "verdict", "what is required, and what was seen", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for verdict in verdicts:
        style = {FAILED: "bold red"}.get(verdict.outcome)
        table.add_row(verdict.check, verdict.outcome, f"{verdict.title} {verdict.seen}".strip(), style=style)
    screen = Screen()
    screen.print(table, width=min(WIDTH, screen.width))
    failed = [verdict for verdict in verdicts if verdict.outcome == FAILED]
    say(
        f"{built.name} fails {len(failed)} of {len(verdicts)} checks." if failed else f"{built.name} passes all checks."
    )
    context.exit(1 if failed else 0)
