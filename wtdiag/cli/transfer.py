"""``wtdiag transfer``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wtdiag.cli.terminal import complain, say

if TYPE_CHECKING:
    import xarray as xr
    from rich.table import Table

ACROSS = 5
"""Architectures side by side in a table."""


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
@click.option("--jobs", type=click.IntRange(min=1), help="Trainings at a time.  [default: one per GPU, or per core]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the transfer.  [default: SWEEP_DIR-transfer]")
@click.option("--format", "formats", type=click.Choice(["html", "pdf", "both"]), default="both", show_default=True)
def transfer(
    sweep_dir: Path,
    targets: tuple[str, ...],
    top: int,
    seeds: tuple[int, ...],
    jobs: int | None,
    out: Path | None,
    formats: str,
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
    from wtdiag.diagnostics.comparison.tables import WIDTH
    from wtdiag.reports import FORMATS
    from wtdiag.reports.study.transfer_page import write as write_report
    from wtdiag.studies.engine.pool import Pool
    from wtdiag.studies.file.architectures import parse_architectures
    from wtdiag.studies.parts.dataset import write
    from wtdiag.studies.parts.transfer import Transfer

    folder = out or sweep_dir.parent / f"{sweep_dir.resolve().name}-transfer"
    whole = Transfer(folder, sweep=sweep_dir, architectures=parse_architectures(targets), top=top, seeds=seeds)
    for note in whole.notes:
        complain(note)
    sources = whole.sources()
    try:
        with Pool(jobs, Screen(stderr=True)) as pool:
            pool.run(*sources)
    except KeyboardInterrupt:
        complain(f"interrupted; the same command continues {folder}")
        raise SystemExit(130) from None
    finally:
        written = write(whole.results(), folder)
    results = whole.results()
    with Screen(stderr=True).status("report"):
        reports = write_report(folder, formats=FORMATS if formats == "both" else (formats,))
    screen = Screen()
    for table in tables(results):
        screen.print(table, width=min(WIDTH, screen.width))
    for line in _failures(results):
        complain(line)
    for path in (written, *reports):
        say(path)


def tables(results: xr.Dataset) -> Iterator[Table]:
    """Yield the accuracy relative to backprop, a row for each rule, in tables of no more than 80 columns."""
    from rich.table import Table
    from rich.text import Text

    from wtdiag.diagnostics.comparison.robustness import relative
    from wtdiag.probes.errors import printable

    accuracies = relative(results)
    labels = [str(label) for label in accuracies["architecture"].values]
    for first in range(0, len(labels), ACROSS):
        shown = labels[first : first + ACROSS]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("accuracy / bp's" if not first else "")
        for label in shown:
            table.add_column(Text(printable(label), overflow="fold"), justify="right")
        for rule in accuracies["rule"].values:
            cells = (accuracies.sel(rule=rule, architecture=label) for label in shown)
            table.add_row(Text(printable(str(rule)), overflow="fold"), *map(_cell, cells))
        yield table


def _cell(accuracies: xr.Dataset) -> str:
    """Return the mean and its interval in two lines, and the number of seeds that are left out."""
    mean, low, high = (float(accuracies[name]) for name in ("mean", "low", "high"))
    if mean != mean:
        return "–"
    lines = [f"{mean:.3f}", f"{low:.2f} to {high:.2f}" if low == low else f"{int(accuracies['n'])} seed"]
    if left_out := int(accuracies["left_out"]):
        lines.append(f"{left_out} left out")
    return "\n".join(lines)


def _failures(results: xr.Dataset) -> Iterator[str]:
    """Yield a line for each run without an accuracy, with the reason."""
    status = results["status"]
    for at in zip(*(status.isin(["failed", "interrupted"])).values.nonzero(), strict=True):
        run = results.isel(dict(zip(status.dims, at, strict=True)))
        yield (
            f"{run['rule'].item()} {run['configuration'].item()} on {run['architecture'].item()}, seed "
            f"{run['seed'].item()}, {run['status'].item()}: {run['reason'].item()}"
        )
