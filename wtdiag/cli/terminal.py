"""How messages, findings, comparisons and entries of a registry are printed, no wider than 80 columns."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wtdiag.probes.errors import InputError, printable, shortened

if TYPE_CHECKING:
    import pandas as pd

    from wtdiag.diagnostics.findings.finding import Finding


class NobodyReads(Exception):
    """The reader of standard output has closed it."""


@contextmanager
def writing() -> Iterator[None]:
    """Turn an error in writing to standard output into one that names it.

    Raises
    ------
    NobodyReads
        If it is a pipe that was closed at its other end; click would make an exit code 1 of a BrokenPipeError.
    InputError
        If it is full or closed.
    """
    try:
        yield
    except BrokenPipeError:
        raise NobodyReads from None
    except OSError as error:
        raise InputError(f"standard output: cannot be written ({error.strerror})") from None


def say(text: object, *, lead: str = "") -> None:
    """Print one line, its ``lead`` in bold."""
    with writing():
        click.echo(click.style(printable(lead), bold=True) + printable(str(text)), file=sys.stdout)


def complain(message: str) -> None:
    """Print a message on standard error as one line, shortened in the middle if it is very long."""
    click.echo(f"wtdiag: {shortened(printable(' '.join(message.split())))}", file=sys.stderr)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Show a warning as one line, without the place in the code that it comes from."""
    complain(f"warning: {message}")


def called(secret: str = "", shown: str = "") -> str:
    """Return the command that is running, as a user would type it, with what may be shown in place of a secret."""
    return shlex.join(["wtdiag", *(word.replace(secret, shown) if secret else word for word in sys.argv[1:])])


def print_findings(findings: Iterable[Finding], run: Path, headline: str = "") -> None:
    """Print a headline, then the first finding of each kind and severity with its advice, and the other layers."""
    from wtdiag.diagnostics.analysis.sentences import listed
    from wtdiag.diagnostics.findings.advice import command

    for line in textwrap.wrap(f"{headline}.", 80) if headline else ():
        say("", lead=line)
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    for (severity, kind), (first, *others) in kinds.items():
        when = f"step {first.first_step}"
        if first.last_step != first.first_step:
            when = f"steps {first.first_step} to {first.last_step}"
        head = kind if severity == "none" else f"{severity}: {kind}"
        also = f" The same was found in {listed([other.layer or 'all layers' for other in others])}." if others else ""
        where = f"{first.layer or 'all layers'}, {when}"
        best, *remedies = first.advice or [""]
        print_entry(head, where, first.summary + also, best and f"Try: {best}")
        for line in command(first.changes, run).splitlines():
            say(f"      {line}")
        print_lines(*(f"Or: {remedy}" for remedy in remedies))


def print_comparison(table: pd.DataFrame) -> None:
    """Print a comparison, and the reason for each run that is left out of it."""
    from wtdiag.cli.console import Screen
    from wtdiag.diagnostics.comparison.tables import WIDTH, comparison_tables

    screen = Screen()
    for shown in comparison_tables(table):
        screen.print(shown, width=min(WIDTH, screen.width))
    for run, reason in table.attrs["unpaired"].items():
        complain(f"{run} is not compared: {reason}")


def print_sentence(sentence: str) -> None:
    """Print a sentence in lines of at most 80 characters."""
    for line in textwrap.wrap(sentence, 80, break_on_hyphens=False):
        say(line)


def print_entry(name: str, title: str, *lines: str) -> None:
    """Print a name in bold with its title, and the other lines indented below it."""
    # Slugs and equations are not broken at their hyphens.
    head = textwrap.fill(f"{name}  {title}", 80, subsequent_indent="      ", break_on_hyphens=False)
    title, *more = head[len(name) :].split("\n")
    say(title, lead=name)
    for line in more:
        say(line)
    print_lines(*lines)


def print_lines(*lines: str) -> None:
    """Print lines indented, as those below the name of an entry."""
    for text in filter(None, lines):
        for line in textwrap.wrap(text, 80, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False):
            say(line)
