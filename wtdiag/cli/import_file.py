"""``wtdiag import``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.terminal import say


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run directory to make.")
@click.option("--rule", help="Name of the rule, as `wtdiag compare` calls it.")
@click.option(
    "--layout", type=click.Choice(["oi", "io"]), default="oi", show_default=True,
    help="Order of the axes: (out, in, ...) or, as in JAX and TensorFlow, (..., in, out).",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the run in --out.")
def import_file(file: Path, out: Path, rule: str | None, layout: str, force: bool) -> None:
    """Make a run directory of weights that another program exported as .npz or .mat.

    For each layer, FILE holds <layer>_forward with the axes (step, out, in, ...) and <layer>_feedback with the same
    axes, or without that of the steps if it never changed; step with the numbers of the training steps; and loss,
    accuracy or other metrics with one number for each step. Then analyze, report and compare work as for any run.

    \b
    wtdiag import weights.npz --rule fa --out runs/mine
    wtdiag import weights.mat --out runs/matlab
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.probes.records.exported import import_run

    import_run(file, out, layout=layout, config={"rule": {"name": rule}} if rule else None, force=force)
    say(out)
