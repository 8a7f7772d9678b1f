"""``wtdiag train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wtdiag.cli.options import GroupedCommand, given, settings_options
from wtdiag.cli.terminal import complain, show_warning
from wtdiag.probes.errors import InputError

if TYPE_CHECKING:
    from wtdiag.trainers.config.settings import Settings


@click.command("train", cls=GroupedCommand)
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
@click.option("--log", "loggers", multiple=True, help="Send numbers to tensorboard, wandb or mlflow too; repeatable.")
@click.argument("file", required=False)
@settings_options
def train(
    rules: tuple[str, ...],
    coefficients: tuple[str, ...],
    config: Path | None,
    out: Path | None,
    resume: bool,
    force: bool,
    loggers: tuple[str, ...],
    file: str | None,
    **options: Any,
) -> None:
    """Train a network by one or several rules and record it.

    FILE holds the data of --data npz.

    \b
    wtdiag train --rule ia --model mlp --depth 8 --epochs 10 --out runs/ia8
    wtdiag train --rule fa --rule kp --data glyphs --model conv --out runs/two
    wtdiag train --rule sa -c self=0.1 -c decay=linear:0.2:0.05
    wtdiag train --resume --out runs/ia8
    wtdiag train --data npz my.npz --out runs/mine
    wtdiag train --config runs/ia8/config.json --seed 1 --out runs/ia8-1
    wtdiag train --rule ia --epochs 20 --out runs/ia --log tensorboard
    wtdiag train --rule kp --devices 4 --batch-size 256 --out runs/kp4
    """  # noqa: D301  (click wants the character itself)
    from wtdiag.trainers.loop.launch import check_modes, parse_coefficients, runs_to_train
    from wtdiag.trainers.loop.processes import check_devices, launched

    check_modes(resume=resume, force=force)
    if loggers:
        from wtdiag.trainers.callbacks.loggers import check_logger

        for kind in loggers:
            check_logger(kind)
    wanted = given(options)
    if file is not None:
        if wanted.get("data") != "npz":
            raise InputError(f"FILE: only --data npz takes one, got {file!r}")
        wanted["data_dir"] = file
    if coefficients:
        wanted["coefficients"] = parse_coefficients(coefficients)
    if (world := launched()) and wanted.setdefault("devices", world) != world:
        raise InputError(f"devices: {wanted['devices']} are asked for, but the launcher has started {world}")
    runs = runs_to_train(rules, wanted, config=config, out=out, resume=resume)
    if world > 1:
        code = work(runs, resume, force, loggers, is_watched=False)
    else:
        from wtdiag.trainers.loop.elastic import devices_of, launch

        devices, max_restarts = devices_of(runs)
        if devices == 1:
            if wanted.get("max_restarts"):
                raise InputError(f"max_restarts: only a run on several devices has them, got {max_restarts}")
            _train(runs, resume=resume, force=force, loggers=loggers)
            return
        check_devices(devices, next(iter(runs.values())).device)
        code = launch(work, runs, resume, force, loggers, devices=devices, max_restarts=max_restarts)
    sys.exit(code)


def work(
    runs: dict[Path, Settings], resume: bool, force: bool, loggers: tuple[str, ...] = (), is_watched: bool = True
) -> int:
    """Train runs as one of several processes; return the exit code of all if they know how it ends.

    Raises
    ------
    SystemExit
        If only this process knows, and the others wait for it.
    """
    import signal
    import warnings

    from wtdiag.trainers.loop import processes
    from wtdiag.trainers.loop.distributed import SharedError
    from wtdiag.trainers.loop.elastic import BAD_INPUT, INTERRUPTED, LOST, is_of

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher sends it again while the run is being closed
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    processes.end_with_parent()
    if processes.restarts() and all(is_of(path, settings) for path, settings in runs.items()):
        resume, force = True, False
        if processes.is_first():
            complain(f"a process was lost; restart {processes.restarts()} goes on from the newest checkpoint")
    with warnings.catch_warnings():
        warnings.showwarning = show_warning if processes.is_first() else lambda *_, **__: None
        try:
            processes.join(next(iter(runs.values())).device)
            _train(runs, resume=resume, force=force, loggers=loggers)
            processes.leave()
        except SharedError as error:
            if processes.is_first():
                complain(str(error))
            return BAD_INPUT
        except InputError as error:
            complain(str(error))
            sys.exit(BAD_INPUT)
        except KeyboardInterrupt:
            if not is_watched:
                raise
            sys.exit(INTERRUPTED)
        except RuntimeError as error:
            if not processes.is_loss(error):
                raise
            if not is_watched:
                complain("another process of the run was lost; the run goes on with --resume")
            sys.exit(LOST)
    return 0


def _train(runs: dict[Path, Settings], *, resume: bool, force: bool, loggers: tuple[str, ...]) -> None:
    from wtdiag.cli.console import Screen
    from wtdiag.probes.records.rundir import ENDED
    from wtdiag.trainers.layers.convert import converted_share
    from wtdiag.trainers.loop.bars import tail
    from wtdiag.trainers.loop.distributed import Ranks
    from wtdiag.trainers.loop.fit import start
    from wtdiag.trainers.loop.launch import status
    from wtdiag.trainers.loop.processes import is_first
    from wtdiag.trainers.loop.progress import follow, table

    ranks = Ranks.of(next(iter(runs.values())))
    ranks.require_same(runs)
    done = ranks.first(lambda: {path: status(path) for path in runs if resume and status(path) in ENDED})
    runs = {path: settings for path, settings in runs.items() if path not in done}
    screen = Screen(stderr=True, quiet=not is_first())
    for path, how in done.items():
        if is_first():
            complain(f"{path} is {how} already")
    if not runs:
        return
    trainings = start(runs, resume=resume, force=force)
    for name, training in trainings.items():
        share = converted_share(training.model)
        part = "all weights" if share == 1 else f"{100 * share:.1f} % of the weights; the rest keeps backprop"
        run = f"{tail(name, 24)}: " if len(trainings) > 1 else ""
        screen.print(f"{run}{training.settings.rule} carries the error of {part}")
    if not (loggers and is_first()):
        states = follow(trainings, screen)
    else:
        from wtdiag.trainers.loop.logged import LoggedTraining

        logged = {name: LoggedTraining(each, loggers, resume=resume) for name, each in trainings.items()}
        try:
            states = follow(trainings, screen, lambda name, progress: logged[name](progress))
        finally:
            for each in logged.values():
                each.close()
    Screen(quiet=not is_first()).print(table(states))
