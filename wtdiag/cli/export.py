"""``wtdiag export``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.terminal import complain, say
from wtdiag.probes.errors import InputError


@click.command("export")
@click.argument("run_dir", type=click.Path(path_type=Path), metavar="RUN_DIR")
@click.option("--zarr", "formats", flag_value="zarr", multiple=True, help="Weights, metrics and analysis as one store.")
@click.option("--parquet", "formats", flag_value="parquet", multiple=True, help="Metrics and analysis as tables.")
@click.option("--csv", "formats", flag_value="csv", multiple=True, help="The same tables as texts.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into.  [default: RUN_DIR-export]")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export(run_dir: Path, formats: tuple[str, ...], out: Path | None, force: bool) -> None:
    """Write a run in formats that other programs read.

    --zarr writes run.zarr, with the weights of every layer over all snapshots, the metrics and the analysis; xarray
    opens it by xarray.open_datatree. --parquet and --csv write the tables metrics, analysis (a row for each step and
    layer) and spectra (a row for each mode).

    \b
    wtdiag export runs/ia8 --csv
    wtdiag export runs/ia8 --zarr --parquet --out shared/ia8
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.diagnostics.analysis.exporting import export as write
    from wtdiag.probes.records.schema import ANALYSIS, open_run

    if not formats:
        raise InputError("format: none given; expected --zarr, --parquet or --csv")
    run = open_run(run_dir)
    here = run_dir.resolve()
    for path in write(run, out or here.with_name(f"{here.name}-export"), dict.fromkeys(formats), force=force):
        say(path)
    if not (run.path / ANALYSIS).exists():
        complain(f"{run.path}: is not analysed, so its measures are missing; `wtdiag analyze {run.path}` adds them")
