"""``wtdiag train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wtdiag.cli.options import given, settings_options
from wtdiag.cli.terminal import complain


@click.command("train")
@click.option("--rule", "rules", multiple=True, help="Rule that carries the error; several train side by side.")
@click.option(
    "--coefficient", "-c", "coefficients", multiple=True, metavar="NAME=VALUE",
    help="Coefficient or option of the rule; VALUE may be a schedule: linear:FROM:TO, exponential:FROM:TO, "
    "cyclic:HIGH:LOW:EPOCHS, window:VALUE:START:STOP.",
)  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path), help="TOML file, or a run's config.json, with settings.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run directory; with several rules, it holds one folder for each."
)
@click.option("--resume", is_flag=True, help="Continue a run that was stopped, with the settings that it has.")
@click.option("--force", is_flag=True, help="Replace runs that are there already.")
@settings_options
def train(
    rules: tuple[str, ...],
    coefficients: tuple[str, ...],
    config: Path | None,
    out: Path | None,
    resume: bool,
    force: bool,
    **options: Any,
) -> None:
    """Train a network by one or several rules and record it.

    \b
    wtdiag train --rule ia --model mlp --depth 8 --epochs 10 --out runs/ia8
    wtdiag train --rule fa --rule kp --data glyphs --model conv --out runs/two
    wtdiag train --rule sa -c self=0.1 -c decay=linear:0.2:0.05
    wtdiag train --resume --out runs/ia8
    wtdiag train --config runs/ia8/config.json --seed 1 --out runs/ia8-1
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.cli.console import Screen
    from wtdiag.probes.records.rundir import ENDED
    from wtdiag.trainers.loop.launch import check_modes, parse_coefficients, runs_to_train, status

    check_modes(resume=resume, force=force)
    wanted = given(options)
    if coefficients:
        wanted["coefficients"] = parse_coefficients(coefficients)
    runs = runs_to_train(rules, wanted, config=config, out=out, resume=resume)
    done = {path: status(path) for path in runs if resume and status(path) in ENDED}
    for path, how in done.items():
        complain(f"{path} is {how} already")
    runs = {path: settings for path, settings in runs.items() if path not in done}
    if not runs:
        return

    from wtdiag.trainers.layers.convert import converted_share
    from wtdiag.trainers.loop.fit import start
    from wtdiag.trainers.loop.progress import follow, table, tail

    trainings = start(runs, resume=resume, force=force)
    screen = Screen(stderr=True)
    for name, training in trainings.items():
        share = converted_share(training.model)
        rest = "" if share == 1 else "; the rest keeps backprop"
        run = f"{tail(name, 24)}: " if len(trainings) > 1 else ""
        screen.print(f"{run}{training.settings.rule} carries the error of {share:.1%} of the weights{rest}")
    states = follow(trainings, screen)
    Screen().print(table(states))
