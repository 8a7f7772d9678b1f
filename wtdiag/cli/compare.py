"""``wtdiag compare``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.terminal import print_comparison, say
from wtdiag.probes.errors import InputError
from wtdiag.workflow import compare as compare_runs
from wtdiag.workflow import run_directories


@click.command("compare")
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@click.option("--reference", help="Rule that the others are compared with.  [default: bp, otherwise the first run's]")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the table to this new CSV file.")
@click.option(
    "--representations", is_flag=True, help="Compare what the layers of two runs make of the same probe batch instead."
)
def compare(run_dirs: tuple[Path, ...], reference: str | None, out: Path | None, representations: bool) -> None:
    """Compare runs, paired by seed, depth, model, data and all settings but the rule's own.

    Shows means over the pairs and 95 % intervals of their differences; n counts the pairs, * marks that some
    diverged, which counts as answering at chance. Runs that were analysed are compared by their angles too.

    \b
    wtdiag compare runs/three
    wtdiag compare runs/*-seed? --reference kp --out differences.csv
    wtdiag compare --representations runs/fa8 runs/bp8
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.diagnostics.analysis.exporting import without_formulas
    from wtdiag.probes.records.schema import write_aside

    if out is not None and out.exists():
        raise InputError(f"out: {out} exists; expected the name of a new file")
    if representations:
        if len(run_dirs) != 2 or reference is not None:
            raise InputError(f"representations: compares two runs, without --reference; got {len(run_dirs)} runs")
        from wtdiag.run_checks import similarity

        table = similarity(*run_dirs)
        say(f"{'layer':<32}{'debiased CKA':>13}{'Procrustes':>12}{'shuffled':>10}")
        for row in table.itertuples():
            say(f"{row.layer:<32}{row.cka:>13.3f}{row.procrustes:>12.3f}{row.procrustes_null:>10.3f}")
    else:
        table = compare_runs(run_directories(run_dirs), reference)
        print_comparison(table)
    if table.empty:
        raise InputError("runs: none of them can be compared with another; expected two of different rules")
    if out is not None:
        with write_aside(out) as aside:
            without_formulas(table).to_csv(aside, index=False)
        say(out)
