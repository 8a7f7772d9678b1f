"""Dry run of a study: build every kind of network, take a few steps on noise, and estimate the cost of all runs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import settings_with_role
from wtdiag.studies.engine.cell import Cell
from wtdiag.studies.file.describe import describe
from wtdiag.studies.file.plan import Plan
from wtdiag.studies.study import Study
from wtdiag.trainers.config.datasets import DataCache, load_data
from wtdiag.trainers.config.device import cores, gpus, threads
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import Data
from wtdiag.trainers.data.synthetic import files_found, synthetic
from wtdiag.trainers.loop.cost import Cost, measure


@dataclass(frozen=True)
class RunKind:
    """All runs of a study that cost the same, because they differ only in seeds and in numbers such as rates.

    Attributes
    ----------
    label : str
        Description by which it differs from the other kinds.
    settings : Settings
        Settings of its first run.
    runs : int
        Number of these runs.
    cost : Cost or None
        Cost of each run; None if it cannot be trained.
    problem : str
        The reason why it cannot be trained, other than missing data.
    """

    label: str
    settings: Settings
    runs: int
    cost: Cost | None = None
    problem: str = ""

    @property
    def hours(self) -> float:
        """Hours of all its training steps, one run after another."""
        return 0.0 if self.cost is None else self.runs * self.cost.steps * self.cost.step_seconds / 3600

    @property
    def in_part(self) -> bool:
        """Whether the time of a step was measured on part of the batch, and scaled up."""
        return self.cost is not None and self.cost.examples < self.settings.batch_size


@dataclass(frozen=True)
class CostEstimate:
    """Estimated cost of a study, and the problems that prevent it.

    Attributes
    ----------
    kinds : tuple of RunKind
        The kinds of runs, in the order of the study.
    at_once : int
        Number of runs that are trained at the same time.
    missing : tuple of str
        A sentence for each data set whose files are not on this machine, which is not a problem of the study.
    problems : tuple of str
        A sentence for each problem that prevents the study: damaged data, networks that cannot be built or trained.
    """

    kinds: tuple[RunKind, ...]
    at_once: int
    missing: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def hours(self) -> float:
        """Hours of the whole study, without runs that cannot be trained."""
        return sum(kind.hours for kind in self.kinds) / self.at_once

    @property
    def snapshot_bytes(self) -> int:
        """Disk space of all planned snapshots."""
        return sum(kind.runs * kind.cost.snapshot_bytes for kind in self.kinds if kind.cost)


def dry_run(cells: Iterable[Cell], jobs: int | None = None) -> CostEstimate:
    """Try each kind of cell and estimate the cost of all; nothing is written or downloaded.

    Data sets are read if their files are present. For each kind, the network is built and trained for a few steps on
    noise in the shape of the data set, with the share of the cores that a worker will have. The time is measured on
    this machine, so the estimate holds for a study that runs here.

    Parameters
    ----------
    cells
        The cells of the study; a cell whose settings a search will find may have any settings of the search.
    jobs
        Number of processes that will train; by default one for each GPU or, without a GPU, for each core. Several on
        one GPU are no faster than one.

    Raises
    ------
    InputError
        If ``jobs`` is not positive.

    Examples
    --------
    >>> estimate = dry_run([Cell(Path("x", rule), Settings(rule=rule, epochs=2)) for rule in ("bp", "fa")], jobs=1)
    >>> [(kind.label, kind.runs, kind.cost.steps) for kind in estimate.kinds], estimate.problems
    ([('bp, mlp', 1, 46), ('fa, mlp', 1, 46)], ())
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: expected a positive number of processes, got {jobs}")
    kinds = _kinds(cells)
    jobs = jobs or gpus() or cores()
    stand_in = DataCache(_stand_in)
    missing: dict[str, None] = {}
    problems: dict[str, None] = {}
    tried = []
    console = Console(stderr=True)
    with threads(max(1, cores() // jobs)):
        for kind in track(kinds, "dry run", console=console, disable=not console.is_terminal, transient=True):
            dataset, absent, problem = stand_in(kind.settings)
            missing |= dict.fromkeys(filter(None, [absent]))
            problems |= dict.fromkeys(filter(None, [problem]))
            tried.append(kind if dataset is None else _tried(kind, dataset))
    problems |= {f"{kind.label}: {kind.problem}": None for kind in tried if kind.problem}
    on_gpu = gpus() and any(not kind.settings.device.startswith("cpu") for kind in kinds)
    at_once = min(jobs, gpus()) if on_gpu else jobs
    return CostEstimate(tuple(tried), at_once, tuple(missing), tuple(problems))


def rehearse(plan: Plan, jobs: int | None = None, console: Console | None = None) -> int:
    """Print the estimated cost of a study and its problems; return the exit code, which is 2 if there are any.

    Raises
    ------
    InputError
        If settings cannot be used.
    """
    with TemporaryDirectory() as folder:
        estimate = dry_run(Study(Path(folder, "study"), plan).cells(), jobs)
    show(estimate, console or Console())
    return 2 if estimate.problems else 0


def show(estimate: CostEstimate, console: Console) -> None:
    """Print a row for each kind of run, the total, and what is missing or wrong."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("runs of")
    for column in ("parameters", "memory", "ms/step", "steps", "runs", "hours"):
        table.add_column(column, justify="right", no_wrap=True)
    for kind in estimate.kinds:
        numbers = ["cannot be trained", "", "", "", str(kind.runs), ""]
        if kind.cost is not None:
            numbers = [
                _si(kind.cost.parameters),
                _si(kind.cost.memory) + "B",
                _short(1e3 * kind.cost.step_seconds) + "*" * kind.in_part,
                str(kind.cost.steps),
                str(kind.runs),
                _hours(kind.hours),
            ]
        table.add_row(Text(kind.label, overflow="fold"), *numbers)
    console.print(table, width=min(80, console.width))
    runs = sum(kind.runs for kind in estimate.kinds)
    lines = [
        f"{runs} runs, {estimate.at_once} at a time: {_hours(estimate.hours)} hours on this machine for the training "
        f"steps; evaluation, data loading and probes come on top. Snapshots: {_si(estimate.snapshot_bytes)}B."
    ]
    if any(kind.in_part for kind in estimate.kinds):
        lines.append("* timed on part of the batch and scaled up")
    lines += [f"missing: {sentence}" for sentence in estimate.missing]
    lines += [f"problem: {sentence}" for sentence in estimate.problems]
    for line in lines:
        console.print(Text(line), width=min(80, console.width))


def _kinds(cells: Iterable[Cell]) -> list[RunKind]:
    """Return the kinds of cells, not yet tried, each with a label by which it differs from the others."""
    first: dict[str, Settings] = {}
    runs: Counter[str] = Counter()
    for cell in cells:
        key = repr(_key(cell.settings))
        first.setdefault(key, cell.settings)
        runs[key] += 1
    keys = [_key(settings) for settings in first.values()]
    labels = _labels(keys)
    return [RunKind(label, first[key], runs[key]) for label, key in zip(labels, first, strict=True)]


def _labels(keys: list[dict[str, Any]]) -> list[str]:
    """Return a label for each kind: its rule, its model, and as many other settings as tell all kinds apart."""
    shown = {"rule", "model"}

    def labels(names: set[str]) -> list[str]:
        return [describe({name: key[name] for name in names}) for key in keys]

    for name in keys[0] if keys else ():
        if len(set(labels(shown | {name}))) > len(set(labels(shown))):
            shown.add(name)
    return labels(shown)


def _key(settings: Settings) -> dict[str, Any]:
    """Return the settings on which the cost of a run depends."""
    key = {name: value for name, value in settings.as_dict().items() if name not in settings_with_role("number")}
    coefficients = {name: value if isinstance(value, str) else "" for name, value in settings.coefficients.items()}
    words = [f"{name}={value}" if value else name for name, value in sorted(coefficients.items())]
    return key | {"coefficients": " ".join(words) or None, "holdout": settings.holdout or None}


def _stand_in(settings: Settings) -> tuple[Data | None, str, str]:
    """Return the data or noise in their shape, a sentence if files are missing, and one if something is wrong."""
    try:
        dataset = load_data(dataclasses.replace(settings, download=False))
        for split in (dataset.train, dataset.test):
            split.example(0), split.example(len(split) - 1)
        return dataset, "", ""
    except InputError as error:
        reason = str(error)
    try:
        noise = synthetic(settings.data, settings.image_size)
    except InputError:
        return None, "", reason
    return (noise, "", reason) if files_found(settings.data, settings.data_dir) else (noise, reason, "")


def _tried(kind: RunKind, dataset: Data) -> RunKind:
    """Return the kind with its cost, or with the reason why it has none."""
    try:
        return dataclasses.replace(kind, cost=measure(kind.settings, dataset))
    except InputError as error:
        return dataclasses.replace(kind, problem=str(error))


def _si(value: float) -> str:
    """Format a number with three digits and the prefix k, M, G or T.

    Examples
    --------
    >>> _si(25_557_032), _si(170), _si(1999)
    ('25.6 M', '170 ', '2 k')
    """
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} T"


def _short(value: float) -> str:
    """Format a number with at least three digits, without powers of ten.

    Examples
    --------
    >>> _short(0.1234), _short(41.26), _short(1234.5)
    ('0.123', '41.3', '1234')
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _hours(value: float) -> str:
    return "<0.01" if value < 0.005 else f"{value:.2f}" if value < 10 else f"{value:.0f}"
