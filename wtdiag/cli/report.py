"""``wtdiag report``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.options import against_option, format_option
from wtdiag.cli.terminal import say
from wtdiag.probes.errors import InputError
from wtdiag.workflow import report as write_report
from wtdiag.workflow import run_directories


@click.command("report")
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@format_option
@click.option(
    "--paper", type=click.Choice(["a4", "letter"]), default="a4", show_default=True, help="Size of the PDF's pages."
)
@against_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report.")
@click.option("--open", "show", is_flag=True, help="Open it when it is written.")
def report(
    run_dirs: tuple[Path, ...],
    formats: tuple[str, ...],
    paper: str,
    against: Path | None,
    out: Path | None,
    show: bool,
) -> None:
    """Write the report on an analysed run again, or the joint report on several; snapshots are not needed.

    \b
    wtdiag report runs/ia8 --format html --open
    wtdiag report runs/two/*
    wtdiag report runs/ia8 --against runs/bp8
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.reports import write

    runs = run_directories(run_dirs)
    if against is not None and len(runs) > 1:
        raise InputError(f"against: a joint report compares all of its {len(runs)} runs; expected a single run")
    if against is None:
        paths = write(runs, out=out, formats=formats, paper=paper)
    else:
        paths = write_report(runs[0], against=against, out=out, formats=formats, paper=paper)
    for path in paths:
        say(path)
    if show:
        click.launch(str(paths[0]))
