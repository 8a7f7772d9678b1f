"""The command line: one file for each command, and what it does with input that cannot be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from wtdiag.cli.analyze import analyze
from wtdiag.cli.compare import compare
from wtdiag.cli.registries import probes, rules
from wtdiag.cli.report import report
from wtdiag.cli.study import studies, study
from wtdiag.cli.sweep import sweep
from wtdiag.cli.train import train
from wtdiag.cli.transfer import transfer
from wtdiag.probes.errors import InputError


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; input that cannot be used ends in one line on standard error and exit code 2."""
    try:
        code = cli.main(args, prog_name="wtdiag", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"wtdiag: {message}", err=True)
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("wtdiag: interrupted; a run goes on with --resume, a study when it is called again", err=True)
        code = 130
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="wtdiag")
def cli() -> None:
    """Train, record and explain networks that learn without weight transport.

    \b
    wtdiag train --rule ia --model mlp --depth 8 --out runs/ia8
    wtdiag analyze runs/ia8
    """  # noqa: D301  (click wants the character itself)


for _command in (train, analyze, report, compare, rules, probes, study, studies, sweep, transfer):
    cli.add_command(_command)
