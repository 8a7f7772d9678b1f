"""``wtdiag study`` and ``wtdiag studies``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wtdiag.cli.options import format_option, jobs_option, scheduler_option
from wtdiag.cli.terminal import called, complain, say
from wtdiag.probes.errors import InputError

if TYPE_CHECKING:
    from wtdiag.studies.parts.grid import Grid

_SLURM_WORKERS = 8


@click.command("study")
@click.argument("file", metavar="FILE.toml")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the study.  [default: runs/NAME]")
@jobs_option
@scheduler_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Train nothing: build every model, check the data, take a few steps, estimate the cost.",
)
@click.option(
    "--slurm-script",
    is_flag=True,
    help="Train nothing: print a script for sbatch, with --jobs workers, that runs the study on a Slurm cluster.",
)
@click.option("--data-dir", help="Folder of the data sets' files.")
@click.option("--device", help="auto, cpu, cuda or cuda:N.")
@format_option
def study(
    file: str,
    out: Path | None,
    jobs: int | None,
    scheduler: str | None,
    dry_run: bool,
    slurm_script: bool,
    data_dir: str | None,
    device: str | None,
    formats: tuple[str, ...],
) -> None:
    """Train all runs that a study file asks for, and report on them. Called again, it continues with those not done.

    FILE.toml is a file, or the name of a study that comes with wtdiag; `wtdiag studies` lists these. Rules are compared
    by test accuracy at the last step, seed by seed. Settings are tuned on held-out training examples, with the same
    budget for every rule.

    \b
    wtdiag studies
    wtdiag study small/weight-transport
    wtdiag study full/weight-transport --data-dir /data --dry-run
    wtdiag study mine.toml --out runs/mine --jobs 4
    wtdiag study mine.toml --out runs/mine --jobs 16 --slurm-script > mine.sbatch
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen
    from wtdiag.studies.file.plan import built_in, read_plan

    asked = [name for name, is_asked in (("dry-run", dry_run), ("slurm-script", slurm_script), ("scheduler", scheduler))
             if is_asked]  # fmt: skip
    if len(asked) > 1:
        raise InputError(f"{', '.join(asked)}: expected one of them, got {len(asked)}")
    plan = read_plan(file)
    places = {"data_dir": data_dir, "device": device}
    plan = dataclasses.replace(plan, settings=plan.settings | {name: value for name, value in places.items() if value})
    folder = out or Path("runs", file if file in built_in() else plan.name)
    if slurm_script:
        from wtdiag.studies.engine.slurm import slurm_script as script

        given = {"--out": folder, "--data-dir": data_dir, "--device": device}
        given |= {"--format": None if len(formats) > 1 else formats[0]}
        words = [word for name, value in given.items() if value for word in (name, str(value))]
        gpu = str(plan.settings.get("device", "auto")) != "cpu"
        click.echo(script(plan.name, ["wtdiag", "study", file, *words], jobs or _SLURM_WORKERS, gpu=gpu), nl=False)
        return
    if dry_run:
        from wtdiag.studies.estimate import rehearse

        sys.exit(rehearse(plan, jobs, Screen()))

    from wtdiag.diagnostics.claims import claims_table
    from wtdiag.diagnostics.comparison.results import DECIDED, RESULTS
    from wtdiag.diagnostics.comparison.tables import WIDTH, grid_table
    from wtdiag.reports.publish import publish
    from wtdiag.reports.study.study_page import report
    from wtdiag.studies.engine.workers import Workers
    from wtdiag.studies.study import Study

    whole = Study(folder, plan, called())
    with Workers(jobs, scheduler, Screen(stderr=True)) as workers:
        claims = whole.run(workers)
    screen = Screen()
    if plan.grids:
        screen.print(grid_table(whole.grid.results()), width=min(WIDTH, screen.width))
        _failures(whole.grid)
    if claims:
        screen.print(claims_table(claims), width=min(WIDTH, screen.width))
    with Screen(stderr=True).status("report"):
        paths = publish(report(whole.out), whole.out, "study", formats)
    for path in (whole.out / RESULTS, whole.out / DECIDED, *paths):
        if path.exists():
            say(path)


@click.command("studies")
def studies() -> None:
    """List the studies that come with wtdiag: what each asks, how long it takes, and what to expect.

    \b
    wtdiag studies
    wtdiag study small/depth-gap
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.studies.file.plan import built_in

    for name, path in built_in().items():
        say("", lead=name)
        head = path.read_text(encoding="utf-8").split("\n\n")[0]
        for line in head.splitlines():
            say(f"    {line.removeprefix('#').strip()}")


def _failures(grid: Grid) -> None:
    """Print which cells failed, and why."""
    for path, outcome in grid.outcomes.items():
        if outcome.status == "failed":
            complain(f"cell {path.name} failed: {outcome.reason}")
