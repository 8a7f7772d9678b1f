"""wtdiag: train, record and explain networks that learn without weight transport.

The front door: public names, loaded when first asked for, and the command line.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import click

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor, nn

    # For type checkers and editors; when the program runs, `__getattr__` loads them.
    from probes import PROBES as PROBES
    from reports import plot as plot
    from trainers.convert import summary as summary
    from trainers.convert import transport_free as transport_free
    from trainers.fit import Training as Training
    from trainers.network import Run
    from trainers.network import open_run as open_run
    from trainers.recorder import Recorder as Recorder
    from trainers.rules import RULES as RULES
    from trainers.rules import Rule as Rule
    from trainers.rules import rule as rule
    from trainers.settings import Settings as Settings
    from trainers.signals import error_signals as error_signals

for _folder in ("diagnostics", "probes", "reports", "trainers"):
    _spec = find_spec(_folder)
    _found = Path(_spec.origin).parent if _spec and _spec.origin else None
    if _found is None or _found.resolve() != Path(__file__).resolve().parent / _folder:
        raise ImportError(
            f"wtdiag needs its own package {_folder!r} beside {__file__}, but Python finds {_found}; "
            "rename or move that one, or take its folder off the path"
        )

from probes.errors import InputError  # noqa: E402  (only once it is known to be ours)

_PUBLIC = {
    "PROBES": "probes",
    "RULES": "trainers.rules",
    "Recorder": "trainers.recorder",
    "Rule": "trainers.rules",
    "Settings": "trainers.settings",
    "Training": "trainers.fit",
    "error_signals": "trainers.signals",
    "open_run": "trainers.network",
    "plot": "reports",
    "rule": "trainers.rules",
    "summary": "trainers.convert",
    "transport_free": "trainers.convert",
}

__all__ = ["InputError", "analyze", "main", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wtdiag' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def analyze(
    run: str | os.PathLike[str] | Run,
    probes: Sequence[str] | None = None,
    *,
    model: nn.Module | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] | None = None,
) -> xr.Dataset:
    """Measure a recorded run: every probe on every layer and snapshot.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    probes
        Names from ``PROBES``; default: all that the run has data for, but the slow.
    model
        A converted network of the run's kind, for runs recorded from a loop of one's own; without it their error
        signals are not measured.
    loss
        Of outputs and targets, for such runs; default: cross-entropy.
    progress
        Wraps the steps that are gone through, as `rich.progress.track` does.

    Returns
    -------
    xr.Dataset
        Dims step, layer, mode; each measure with units and its null expectation.

    Raises
    ------
    InputError
        If the directory is no run, a snapshot is not whole, or a probe is unknown.
    """
    from diagnostics.analyze import analyze as measure
    from trainers.network import open_run, signals_of

    opened = open_run(run) if isinstance(run, (str, os.PathLike)) else run
    return measure(opened, probes, signals=signals_of(opened, model, loss), progress=progress)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; input that cannot be used ends in one line on standard error and exit code 2."""
    try:
        code = cli.main(args, prog_name="wtdiag", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"wtdiag: {message}", err=True)
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("wtdiag: interrupted; a training run goes on with --resume", err=True)
        code = 130
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="wtdiag")
def cli() -> None:
    """Train, record and explain networks that learn without weight transport.

    \b
    wtdiag train --rule ia --model mlp --depth 8 --out runs/ia8
    wtdiag analyze runs/ia8
    """  # noqa: D301  (click wants the character itself)


def _settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option per setting, so that command line, config file and config.json never differ."""
    from trainers.settings import Settings

    hints = get_type_hints(Settings)
    for field in reversed(dataclasses.fields(Settings)):
        if field.name in ("rule", "coefficients"):
            continue
        kinds = get_args(hints[field.name]) or (hints[field.name],)
        name = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.default is not None:
            default = ("on" if field.default else "off") if kinds[0] is bool else field.default
            text += f"  [default: {default}]"
        declaration = f"{name}/--no-{name[2:]}" if kinds[0] is bool else name
        kind = click.Choice(field.metadata["choices"]) if field.metadata["choices"] else kinds[0]
        command = click.option(
            declaration, field.name, type=None if kinds[0] is bool else kind, default=None, help=text
        )(command)
    return command


@cli.command("train")
@click.option("--rule", "rules", multiple=True, help="Rule that carries the error; several train side by side.")
@click.option(
    "--coefficient", "-c", "coefficients", multiple=True, metavar="NAME=VALUE",
    help="Coefficient or option of the rule; VALUE may be a schedule: linear:FROM:TO, exponential:FROM:TO, "
    "cyclic:HIGH:LOW:EPOCHS, window:VALUE:START:STOP.",
)  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path), help="TOML file, or a run's config.json, with settings.")
@click.option("--out", type=click.Path(path_type=Path), help="Run directory; with several rules one folder each in it.")
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped, by the settings it has.")
@click.option("--force", is_flag=True, help="Replace runs that are there already.")
@_settings_options
def _train(
    rules: tuple[str, ...],
    coefficients: tuple[str, ...],
    config: Path | None,
    out: Path | None,
    resume: bool,
    force: bool,
    **given: Any,
) -> None:
    """Train a network by one or several rules and record it.

    \b
    wtdiag train --rule ia --model mlp --depth 8 --epochs 10 --out runs/ia8
    wtdiag train --rule fa --rule kp --data glyphs --model conv --out runs/two
    wtdiag train --rule sa -c self=0.1 -c decay=linear:0.2:0.05
    wtdiag train --resume --out runs/ia8
    wtdiag train --config runs/ia8/config.json --seed 1 --out runs/ia8-1
    """  # noqa: D301  (click wants the character itself)
    from rich.console import Console

    from trainers.launch import ENDED, parse_coefficients, runs_to_train, status

    wanted = {name: value for name, value in given.items() if value is not None}
    if coefficients:
        wanted["coefficients"] = parse_coefficients(coefficients)
    runs = runs_to_train(rules, wanted, config=config, out=out, resume=resume)
    done = {path: status(path) for path in runs if resume and status(path) in ENDED}
    for path, how in done.items():
        click.echo(f"{path} is {how} already", err=True)
    runs = {path: settings for path, settings in runs.items() if path not in done}
    if not runs:
        return

    from trainers.fit import start
    from trainers.progress import follow, table

    trainings = start(runs, resume=resume, force=force)
    states = follow(trainings, Console(stderr=True))
    Console().print(table(states))


@cli.command("analyze")
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@click.option("--probe", "probes", multiple=True, help="Measure only this; several may be given.")
@click.option("--format", "formats", type=click.Choice(["html", "pdf", "both"]), default="both", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the joint report of several runs.")
def _analyze(run_dirs: tuple[Path, ...], probes: tuple[str, ...], formats: str, out: Path | None) -> None:
    """Measure recorded runs and write their reports.

    \b
    wtdiag analyze runs/ia8
    wtdiag analyze runs/two/*
    """  # noqa: D301  (click wants the character itself)
    from rich.console import Console
    from rich.progress import track

    from diagnostics.analyze import write_analysis
    from probes.schema import ANALYSIS
    from reports import FORMATS, write
    from trainers.network import open_run

    console = Console(stderr=True)
    wanted = FORMATS if formats == "both" else (formats,)
    opened = [open_run(path) for path in run_dirs]  # all of them, before the first is measured
    for run in opened:
        steps = lambda steps, run=run: track(  # noqa: E731
            steps, f"{run.path}", console=console, disable=not console.is_terminal
        )
        write_analysis(analyze(run, probes or None, progress=steps), run.path / ANALYSIS)
        for path in write([run.path], formats=wanted):
            click.echo(path)
    if len(opened) > 1:
        with console.status("joint report"):
            paths = write([run.path for run in opened], out=out, formats=wanted)
        for path in paths:
            click.echo(path)


@cli.command("report")
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@click.option("--format", "formats", type=click.Choice(["html", "pdf", "both"]), default="both", show_default=True)
@click.option("--paper", type=click.Choice(["a4", "letter"]), default="a4", show_default=True, help="Of the PDF.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report.")
@click.option("--open", "show", is_flag=True, help="Show it when it is written.")
def _report(run_dirs: tuple[Path, ...], formats: str, paper: str, out: Path | None, show: bool) -> None:
    """Write the report on an analysed run again, or the joint report on several; needs no snapshots.

    \b
    wtdiag report runs/ia8 --format html --open
    wtdiag report runs/two/*
    """  # noqa: D301  (click wants the character itself)
    from reports import FORMATS, write

    paths = write(run_dirs, out=out, formats=FORMATS if formats == "both" else (formats,), paper=paper)
    for path in paths:
        click.echo(path)
    if show:
        click.launch(str(paths[0]))


@cli.command("rules")
def _rules() -> None:
    """List the rules with their equations, coefficients and references."""
    from trainers.rules import RULES

    for name, rule in RULES.items():
        fields = [f"{field.name}={field.default}" for field in dataclasses.fields(rule)]
        _entry(name, rule.title, rule.equation, ", ".join(fields), rule.reference)


@cli.command("probes")
def _probes() -> None:
    """List the probes with their units, equations and references."""
    from probes import PROBES

    for name, probe in PROBES.items():
        _entry(name, f"{probe.long_name} [{probe.units}]", probe.equation, probe.reference)


def _entry(name: str, title: str, *lines: str) -> None:
    head = click.wrap_text(f"{name}  {title}", 80, subsequent_indent="      ")
    click.echo(click.style(name, bold=True) + head[len(name) :])
    for line in filter(None, lines):
        click.echo(click.wrap_text(line, 80, initial_indent="    ", subsequent_indent="      "))
