"""``wtdiag transfer``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wtdiag.cli.options import format_option, jobs_option, scheduler_option
from wtdiag.cli.terminal import called, complain, say

if TYPE_CHECKING:
    import xarray as xr


@click.command("transfer")
@click.argument("sweep_dir", type=click.Path(path_type=Path))
@click.option(
    "--to", "targets", multiple=True, required=True, metavar="NAME=VALUE[,...]",
    help="Settings that turn the sweep's architecture into another, as depth=8 or model=conv,data=glyphs; repeatable.",
)  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Configurations of each rule.")
@click.option(
    "--seed", "seeds", multiple=True, type=click.IntRange(min=0), default=(0, 1, 2), show_default="0, 1, 2",
    help="Seed of the trainings; repeatable.",
)  # fmt: skip
@jobs_option
@scheduler_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the transfer.  [default: SWEEP_DIR-transfer]")
@format_option
def transfer(
    sweep_dir: Path,
    targets: tuple[str, ...],
    top: int,
    seeds: tuple[int, ...],
    jobs: int | None,
    scheduler: str | None,
    out: Path | None,
    formats: tuple[str, ...],
) -> None:
    """Train the best settings that a sweep found, unchanged, on other architectures, and report on it.

    Each rule's best configurations, by accuracy on held-out examples, are trained anew there and on the sweep's own
    architecture, and are evaluated on the test set at the last step. Prints test accuracy relative to that of
    backprop's best, seed by seed, with 95 % intervals. Called again, it continues with the trainings that are not done.

    \b
    wtdiag transfer runs/lr --to depth=8 --to width=128
    wtdiag transfer runs/map --to model=conv,data=glyphs --top 3 --seed 0 --seed 1 --jobs 2
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen
    from wtdiag.diagnostics.comparison.tables import WIDTH, transfer_tables
    from wtdiag.reports.publish import publish
    from wtdiag.reports.study.transfer_page import report
    from wtdiag.studies.engine.workers import Workers
    from wtdiag.studies.file.architectures import parse_architectures
    from wtdiag.studies.parts.dataset import write
    from wtdiag.studies.parts.transfer import Transfer

    folder = out or sweep_dir.parent / f"{sweep_dir.resolve().name}-transfer"
    whole = Transfer(folder, sweep=sweep_dir, architectures=parse_architectures(targets), top=top, seeds=seeds)
    for note in whole.notes:
        complain(note)
    with Workers(jobs, scheduler, Screen(stderr=True)) as workers:
        sources = whole.sources()
        try:
            workers.run(*sources)
        finally:
            written = write(whole.results().assign_attrs(command=called()), folder)
    results = whole.results()
    with Screen(stderr=True).status("report"):
        reports = publish(report(folder), folder, "transfer", formats)
    screen = Screen()
    for table in transfer_tables(results):
        screen.print(table, width=min(WIDTH, screen.width))
    for line in _failures(results):
        complain(line)
    for path in (written, *reports):
        say(path)


def _failures(results: xr.Dataset) -> Iterator[str]:
    """Yield a line for each run without an accuracy, with the reason."""
    status = results["status"]
    for at in zip(*(status.isin(["failed", "interrupted"])).values.nonzero(), strict=True):
        run = results.isel(dict(zip(status.dims, at, strict=True)))
        yield (
            f"{run['rule'].item()} {run['configuration'].item()} on {run['architecture'].item()}, seed "
            f"{run['seed'].item()}, {run['status'].item()}: {run['reason'].item()}"
        )
