"""wtdiag: train, record and explain networks that learn without weight transport.

The front door: public names, loaded when first asked for, and the command line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import Tensor, nn

    # For type checkers and editors; when the program runs, `__getattr__` loads them.
    from diagnostics.finding import Finding as Finding
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

for _folder in ("diagnostics", "probes", "reports", "studies", "trainers"):
    _spec = find_spec(_folder)
    _found = Path(_spec.origin).parent if _spec and _spec.origin else None
    if _found is None:
        raise ImportError(
            f"wtdiag needs its own package {_folder!r} beside {__file__}, but Python finds none: the installation is "
            "older than the code; run `pip install -e .` again"
        )
    if _found.resolve() != Path(__file__).resolve().parent / _folder:
        raise ImportError(
            f"wtdiag needs its own package {_folder!r} beside {__file__}, but Python finds {_found}; "
            "rename or move that one, or take its folder off the path"
        )

from probes.errors import InputError  # noqa: E402  (only once it is known to be ours)
from studies.cli_study import studies, study  # noqa: E402
from studies.cli_sweep import sweep  # noqa: E402
from studies.cli_transfer import transfer  # noqa: E402
from trainers.options import given, settings_options  # noqa: E402

_PUBLIC = {
    "Finding": "diagnostics.finding",
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

__all__ = ["InputError", "analyze", "compare", "diagnose", "main", "report", *_PUBLIC]


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
    scheduler: str | None = None,
) -> xr.Dataset:
    """Measure a recorded run: every probe on every layer and snapshot, and what follows from them.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    probes
        Names from ``PROBES``; default: all that the run has data for, but the slow.
    model
        A converted network of the run's kind, for runs recorded from a loop of one's own; without it nothing but
        their weights is measured.
    loss
        Of outputs and targets, for such runs; default: cross-entropy.
    progress
        Wraps the steps that are gone through, as `rich.progress.track` does.
    scheduler
        Address of a dask cluster that does the work, such as ``tcp://host:8786``; its workers need wtdiag and the same
        file system. Default: threads.

    Returns
    -------
    xr.Dataset
        Dims step, layer, mode; each measure with units and its null expectation.

    Raises
    ------
    InputError
        If the directory is no run, a snapshot is not whole, a probe is unknown, or the cluster cannot be used.
    """
    from diagnostics.analyze import analyze as measure
    from trainers.network import attribution_of, open_run, signals_of

    opened = open_run(run) if isinstance(run, (str, os.PathLike)) else run

    def of_run(make: Callable[..., Any]) -> Any:
        function = make(opened, model, loss)
        return function if scheduler is None or function is None else _OfRun(make, opened.path.resolve(), model, loss)

    return measure(opened, probes, of_run(signals_of), of_run(attribution_of), progress, scheduler)


@dataclasses.dataclass
class _OfRun:
    """A function of a run's step that is made in the process where it is first called: what travels is the path."""

    make: Callable[..., Any]
    path: Path
    model: nn.Module | None
    loss: Callable[[Tensor, Tensor], Tensor] | None

    @cached_property
    def _function(self) -> Callable[[int], Any]:
        from trainers.network import open_run

        function: Callable[[int], Any] = self.make(open_run(self.path), self.model, self.loss)
        return function

    def __call__(self, step: int) -> Any:
        return self._function(step)


def diagnose(run: str | os.PathLike[str] | Run, analysis: xr.Dataset | None = None) -> tuple[Finding, ...]:
    """Say what is wrong with a run: what, where, when, how sure, why, and what to try.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    analysis
        What `analyze` gave for it; default: the ``analysis.nc`` that ``wtdiag analyze`` left.

    Returns
    -------
    tuple of Finding
        Most severe first; never empty, for where nothing is wrong a finding says so.

    Raises
    ------
    InputError
        If the directory is no run, or it is not analysed and ``analysis`` is not given.
    """
    import pandas as pd

    from diagnostics.analyze import read_analysis
    from diagnostics.diagnose import diagnose as find
    from probes.schema import ANALYSIS, METRICS, open_run

    opened = open_run(run) if isinstance(run, (str, os.PathLike)) else run
    metrics = opened.metrics if (opened.path / METRICS).exists() else pd.DataFrame()
    return find(read_analysis(opened.path / ANALYSIS) if analysis is None else analysis, opened.config, metrics)


def report(
    run: str | os.PathLike[str] | Run,
    analysis: xr.Dataset | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = ("html", "pdf"),
) -> list[Path]:
    """Write the report on a run, as ``wtdiag analyze`` does.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    analysis
        What `analyze` gave for it: it is kept in the run's directory as ``analysis.nc``, beside its findings. Default:
        the ``analysis.nc`` that is there.
    out
        Folder of the report; default: the run's directory.
    formats
        "html", "pdf" or both.

    Returns
    -------
    list of Path
        The reports written.

    Raises
    ------
    InputError
        If the directory is no run, there is no analysis, or a file cannot be written.
    """
    from diagnostics.analyze import write_analysis
    from diagnostics.finding import write_findings
    from probes.schema import ANALYSIS, FINDINGS, open_run
    from reports import write

    opened = open_run(run) if isinstance(run, (str, os.PathLike)) else run
    if analysis is not None:
        # What was dear to get is safe before what is made of it.
        write_analysis(analysis, opened.path / ANALYSIS)
        write_findings(diagnose(opened.path, analysis), opened.path / FINDINGS)
    return write([opened.path], out=out, formats=formats)


def compare(
    runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], reference: str | None = None
) -> pd.DataFrame:
    """Compare runs of several rules, paired by seed, depth, model, data and all other settings.

    Parameters
    ----------
    runs
        Run directories, or a folder that holds them. Where they are analysed, angles are compared too.
    reference
        Rule that the others are held against; default: bp if it is there, else that of the first run.

    Returns
    -------
    pd.DataFrame
        As `diagnostics.compare.compare` describes: differences with 95 % bootstrap intervals over the pairs;
        ``.attrs["unpaired"]`` tells of each run that could not be paired why.

    Raises
    ------
    InputError
        If there is no run, a directory is none, or the reference is no run's rule.
    """
    from diagnostics.compare import compare as compare_runs
    from probes.schema import open_run

    paths = [runs] if isinstance(runs, (str, os.PathLike)) else runs
    return compare_runs([open_run(run) for run in _runs(map(Path, paths))], reference)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; input that cannot be used ends in one line on standard error and exit code 2."""
    try:
        code = cli.main(args, prog_name="wtdiag", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"wtdiag: {message}", err=True)
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("wtdiag: interrupted; a run goes on with --resume, a study when it is called again", err=True)
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
@settings_options
def _train(
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
    from rich.console import Console

    from trainers.launch import ENDED, check_modes, parse_coefficients, runs_to_train, status

    check_modes(resume=resume, force=force)
    wanted = given(options)
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
@click.option("--probe", "probes", multiple=True, help="Measure this too, one of those that take long; repeatable.")
@click.option("--format", "formats", type=click.Choice(["html", "pdf", "both"]), default="both", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the joint report of several runs.")
@click.option(
    "--scheduler", metavar="ADDRESS",
    help="Let a dask cluster measure, as tcp://host:8786. Its workers need wtdiag and the same file system; dask lets "
    "whoever reaches a scheduler run code on it.",
)  # fmt: skip
def _analyze(
    run_dirs: tuple[Path, ...], probes: tuple[str, ...], formats: str, out: Path | None, scheduler: str | None
) -> None:
    """Measure recorded runs, say what is wrong with them, and write their reports.

    Prints the findings of each run, most severe first, then the paths of the files written; of several runs also how
    they compare. A folder that holds runs stands for them.

    \b
    wtdiag analyze runs/ia8
    wtdiag analyze runs/two
    wtdiag analyze --probe descent_eigenvalue runs/ia8
    wtdiag analyze --scheduler tcp://head:8786 runs/large
    """  # noqa: D301  (click wants the character itself)
    from rich.console import Console
    from rich.progress import track

    from diagnostics.compare import compare as compare_runs
    from diagnostics.finding import read_findings
    from probes.schema import ANALYSIS, FINDINGS
    from reports import FORMATS, write
    from reports.publish import destination
    from trainers.network import open_run

    console = Console(stderr=True)
    wanted = FORMATS if formats == "both" else (formats,)
    opened = [open_run(path) for path in _runs(run_dirs)]  # all of them, before the first is measured
    folder = destination([run.path for run in opened], out)
    for run in opened:
        steps = lambda steps, run=run: track(  # noqa: E731
            steps, f"{run.path}", console=console, disable=not console.is_terminal
        )
        more = analyze(run, probes, progress=steps, scheduler=scheduler).data_vars if probes else {}
        analysis = analyze(run, progress=steps, scheduler=scheduler)
        analysis = analysis.assign({name: value for name, value in more.items() if name not in analysis})
        for step, reason in json.loads(analysis.attrs.get("failures", "{}")).items():
            click.echo(f"wtdiag: step {step} has no signals: {reason}", err=True)
        own = report(run, analysis, out=folder if len(opened) == 1 else None, formats=wanted)
        if len(opened) > 1:
            click.echo(click.style(str(run.path), bold=True))
        _print_findings(read_findings(run.path / FINDINGS))
        for path in (run.path / ANALYSIS, run.path / FINDINGS, *own):
            click.echo(path)
    if len(opened) > 1:
        with console.status("joint report"):
            paths = write([run.path for run in opened], out=folder, formats=wanted)
        _print_comparison(compare_runs(opened))
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

    paths = write(_runs(run_dirs), out=out, formats=FORMATS if formats == "both" else (formats,), paper=paper)
    for path in paths:
        click.echo(path)
    if show:
        click.launch(str(paths[0]))


@cli.command("compare")
@click.argument("run_dirs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN_DIR...")
@click.option("--reference", help="Rule that the others are held against.  [default: bp, else the first run's]")
@click.option("--out", type=click.Path(path_type=Path), help="Write the table to this new CSV file too.")
def _compare(run_dirs: tuple[Path, ...], reference: str | None, out: Path | None) -> None:
    """Compare runs, paired by seed, depth, model, data and all settings but the rule's own.

    Shows means over the pairs and 95 % bootstrap intervals of their differences; n counts the pairs, * marks that some
    diverged, which counts as answering at chance. Runs that were analysed are compared by their angles too.

    \b
    wtdiag compare runs/three
    wtdiag compare runs/*-seed? --reference kp --out differences.csv
    """  # noqa: D301  (click wants the character itself)
    from probes.schema import write_aside

    if out is not None and out.exists():
        raise InputError(f"out: {out} exists; expected the name of a new file")
    table = compare(_runs(run_dirs), reference)
    _print_comparison(table)
    if table.empty:
        raise InputError("runs: none of them can be compared with another; expected two of different rules")
    if out is not None:
        with write_aside(out) as aside:
            table.to_csv(aside, index=False)
        click.echo(out)


def _runs(paths: Iterable[Path]) -> list[Path]:
    """Return the run directories that are meant, each once.

    A folder that is no run stands for the runs in it, and what an earlier comparison left beside them is passed over.
    """
    from probes.schema import CONFIG
    from reports.publish import COMPARISON

    found: list[Path] = []
    for path in paths:
        inside = sorted(config.parent for config in path.glob(f"*/{CONFIG}")) if not (path / CONFIG).exists() else []
        if inside or not (path.is_file() and path.stem == COMPARISON):
            found += inside or [path]
    if not found:
        raise InputError(f"runs: {', '.join(map(str, paths))} is no run directory; expected at least one")
    return list(dict.fromkeys(found))


def _print_findings(findings: Iterable[Finding]) -> None:
    """Print the first finding of each kind and severity, and in how many other places there are such."""
    from diagnostics.tables import plain

    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    for (severity, kind), (first, *others) in kinds.items():
        when = f"step {first.first_step}"
        if first.last_step != first.first_step:
            when = f"steps {first.first_step} to {first.last_step}"
        head = kind if severity == "none" else f"{severity}: {kind}"
        also = f" Also in {', '.join(other.layer or 'all layers' for other in others)}." if others else ""
        where = f"{first.layer or 'all layers'}, {when}"
        _entry(head, plain(where), plain(first.summary + also))


def _print_comparison(table: pd.DataFrame) -> None:
    from rich.console import Console

    from diagnostics.tables import WIDTH, comparison_tables

    console = Console()
    for shown in comparison_tables(table):
        console.print(shown, width=min(WIDTH, console.width))
    for run, reason in table.attrs["unpaired"].items():
        click.echo(f"wtdiag: {run} is not compared: {reason}", err=True)


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


for _command in (study, studies, sweep, transfer):
    cli.add_command(_command)


def _entry(name: str, title: str, *lines: str) -> None:
    # Slugs and equations are not broken at their hyphens.
    head = textwrap.fill(f"{name}  {title}", 80, subsequent_indent="      ", break_on_hyphens=False)
    click.echo(click.style(name, bold=True) + head[len(name) :])
    for line in filter(None, lines):
        click.echo(textwrap.fill(line, 80, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False))
