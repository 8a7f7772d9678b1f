"""The command line: one file for each command. Here they come together, and unusable input ends in one line."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

import click

from wtdiag.cli.analyze import analyze
from wtdiag.cli.attack import attack
from wtdiag.cli.audit import audit
from wtdiag.cli.baseline import baseline
from wtdiag.cli.check import check
from wtdiag.cli.compare import compare
from wtdiag.cli.export import export
from wtdiag.cli.import_file import import_file
from wtdiag.cli.index import index
from wtdiag.cli.open_report import open_report
from wtdiag.cli.registries import findings, probes, rules
from wtdiag.cli.report import report
from wtdiag.cli.study import studies, study
from wtdiag.cli.sweep import sweep
from wtdiag.cli.terminal import NobodyReads, complain, show_warning
from wtdiag.cli.train import train
from wtdiag.cli.transfer import transfer
from wtdiag.probes.errors import InputError


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; unusable input ends in one line on standard error and exit code 2."""
    _open_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            code = cli.main(args, prog_name="wtdiag", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        message, code = error.format_message() if isinstance(error, click.ClickException) else str(error), 2
    except (KeyboardInterrupt, click.Abort):
        message, code = "interrupted; a training goes on with --resume, any other command when it is called again", 130
    except NobodyReads:
        message, code = "", 0
    except OSError as error:
        message, code = f"{error.filename}: {error.strerror}" if error.filename else str(error), 2
    else:
        message = ""
    with suppress(OSError):
        if message:
            complain(message)
    for stream in (sys.stdout, sys.stderr):
        _discard_rest(stream)
    sys.exit(code)


def _open_streams() -> None:
    """Escape characters that the terminal's encoding lacks, and make writing to a closed stream an error.

    The number of a closed stream would go to the next file that is opened, which could be one of a run.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            while (descriptor := os.open(os.devnull, os.O_RDONLY)) < number:
                pass
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_rest(stream: TextIO) -> None:
    """Discard what cannot be written, so that the interpreter does not try again when it exits."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):  # a stream without a file of the system's
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_SECTIONS = {
    "Train and analyse": (train, analyze, report, open_report, index),
    "Compare": (compare, study, studies, sweep, transfer),
    "Examine further": (attack, baseline),
    "Networks and rules of others": (import_file, export, audit, check),
    "Look up": (rules, probes, findings),
}


class _Sections(click.Group):
    """A group whose help lists its commands under headings, each with its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all commands, a section for each heading."""
        for heading, commands in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(str(each.name), each.get_short_help_str(limit=200)) for each in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="wtdiag")
def cli() -> None:
    """Train, record and explain networks that learn without weight transport.

    \b
    wtdiag train --rule ia --model mlp --depth 8 --out runs/ia8
    wtdiag analyze runs/ia8
    """  # noqa: D301  (click wants the character itself)


for _command in (each for section in _SECTIONS.values() for each in section):
    cli.add_command(_command)
