"""``wtdiag index``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.terminal import say
from wtdiag.probes.errors import InputError
from wtdiag.workflow import run_directories


@click.command("index")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUNS")
def index(folder: Path) -> None:
    """Write one page over all runs in a folder, index.html: sortable, filterable, with a link to each report.

    \b
    wtdiag index runs
    wtdiag open runs
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.reports.runs_index import write_index

    if not folder.is_dir():
        raise InputError(f"RUNS: {folder} is not a folder; expected one that holds run directories")
    runs = run_directories([folder])
    if runs == [folder]:
        raise InputError(f"RUNS: {folder} holds no runs; expected a folder of run directories")
    say(write_index(runs, folder))
