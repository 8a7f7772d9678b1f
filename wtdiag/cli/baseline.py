"""``wtdiag baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wtdiag.cli.terminal import say

if TYPE_CHECKING:
    from wtdiag.diagnostics.analysis.owed import Arm

_ABOUT = {
    "learned": "as the run left them",
    "frozen": "as the run began with them",
    "re-randomised": "drawn anew, for each seed",
    "removed": "none: the input itself",
}


@click.command("baseline")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--epochs", type=int, default=10, show_default=True, help="Epochs for which each last layer is trained.")
@click.option("--seeds", type=int, default=5, show_default=True, help="Paired seeds, at least 2.")
@click.option("--examples", type=int, default=4000, show_default=True, help="Most training examples of each training.")
@click.option("--tested", type=int, default=2000, show_default=True, help="Most test examples.")
@click.option("--by-block", is_flag=True, help="Freeze, re-randomise and remove each block alone too.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def baseline(run_dir: Path, epochs: int, seeds: int, examples: int, tested: int, by_block: bool, device: str) -> None:
    """Measure how much of a run's accuracy its lower layers have earned.

    A last layer is trained anew on what the lower layers make of the data: as the run left them, frozen as it began
    with them, drawn anew, and removed. Shows test accuracies, and how far the learned layers are above each, with 95 %
    intervals over seeds and test examples. Writes baseline.json into the run directory, which `wtdiag analyze` reads
    for the finding no-better-than-frozen, and the report shows.

    \b
    wtdiag baseline runs/fa8
    wtdiag baseline runs/fa8 --seeds 10 --examples 10000
    wtdiag baseline runs/fa8 --by-block
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen, counted
    from wtdiag.diagnostics.analysis.owed import FILE
    from wtdiag.run_checks import baseline as measure

    with counted(f"{run_dir}: last layers", Screen(stderr=True)) as done:
        found = measure(
            run_dir,
            epochs=epochs,
            seeds=seeds,
            examples=examples,
            tested=tested,
            by_block=by_block,
            device=device,
            done=done,
        )
    say(f"{'lower layers':<16}{'':<28}{'accuracy, %':<24}learned, points above", lead="")
    for arm, each in found.arms.items():
        say(f"{arm:<16}{_ABOUT[arm]:<28}{_numbers(each, gains=arm != 'learned')}")
    for block, arms in found.blocks.items():
        for arm, each in arms.items():
            say(f"{arm:<16}{f'only {block}':<28}{_numbers(each)}")
    say(run_dir / FILE)


def _numbers(arm: Arm, *, gains: bool = True) -> str:
    accuracy = f"{100 * arm.accuracy:.1f} [{100 * arm.low:.1f}, {100 * arm.high:.1f}]"
    gain = f"{100 * arm.gain:+.1f} [{100 * arm.gain_low:+.1f}, {100 * arm.gain_high:+.1f}]"
    return f"{accuracy:<24}{gain if gains else ''}"
