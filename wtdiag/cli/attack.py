"""``wtdiag attack``."""

from __future__ import annotations

from pathlib import Path

import click

from wtdiag.cli.terminal import say


@click.command("attack")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--strength",
    "strengths",
    type=float,
    multiple=True,
    default=(0.02, 0.05, 0.1, 0.2),
    show_default=True,
    help="Largest change of a value, or standard deviation of the noise, as a share of the range of the pixels; "
    "give it several times.",
)
@click.option(
    "--blur",
    "widths",
    type=float,
    multiple=True,
    default=(0.5, 1.0, 2.0),
    show_default=True,
    help="Standard deviation of the blur in pixels; give it several times.",
)
@click.option("--pgd-steps", type=int, default=10, show_default=True, help="Steps of projected gradient descent.")
@click.option("--tested", type=int, default=500, show_default=True, help="Most test examples.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
def attack(
    run_dir: Path, strengths: tuple[float, ...], widths: tuple[float, ...], pgd_steps: int, tested: int, device: str
) -> None:
    """Measure how a run's accuracy falls under attacks, noise and blur.

    FGSM and PGD follow the true gradient, and also the signal that the rule's own feedback sends to the inputs. If only
    the second leaves the accuracy high, the network is not robust: its feedback hides the gradient. Shows accuracies
    on test examples in %, with 95 % intervals, and writes attack.json into the run directory, which reports show.

    \b
    wtdiag attack runs/fa8
    wtdiag attack runs/fa8 --strength 0.03 --strength 0.06 --tested 2000
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen, counted
    from wtdiag.diagnostics.analysis.attacked import ATTACKS, FILE
    from wtdiag.run_checks import attack as measure

    with counted(f"{run_dir}: attacks", Screen(stderr=True)) as done:
        found = measure(
            run_dir, strengths=strengths, widths=widths, pgd_steps=pgd_steps, tested=tested, device=device, done=done
        )
    say(f"{'attack':<12}{'':<36}{'strength':<10}accuracy, %", lead="")
    for name, about in ATTACKS.items():
        for count, each in enumerate(found.of(name)):
            accuracy = f"{100 * each.accuracy:.1f} [{100 * each.low:.1f}, {100 * each.high:.1f}]"
            head = f"{'' if count else name:<12}{'' if count else about:<36}"
            say(f"{head}{each.strength or '':<10}{accuracy}", lead="")
    say(run_dir / FILE)
