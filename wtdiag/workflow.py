"""The steps after a training, as functions: `analyze`, `read_analysis`, `diagnose`, `report` and `compare`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError, check_path

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from torch import Tensor, nn

    from wtdiag.diagnostics.analysis.accuracy import Reference
    from wtdiag.diagnostics.findings.finding import Finding
    from wtdiag.probes.records.schema import Run
    from wtdiag.trainers.observe.open_run import ModelRun


def analyze(
    run: str | os.PathLike[str] | ModelRun,
    probes: Sequence[str] | None = None,
    *,
    model: nn.Module | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    signals: Callable[[int], Mapping[str, Mapping[str, Any]]] | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] | None = None,
    scheduler: str | None = None,
    also: Sequence[str] = (),
    fast: bool = False,
    again: bool = False,
) -> xr.Dataset:
    """Measure a recorded run: every probe on every layer and snapshot, and the variables derived from them.

    Snapshots that the run's ``analysis.nc`` measured from the same weights, batch, settings and version of wtdiag are
    not measured again; `read_analysis` reads that file without looking at the snapshots.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    probes
        Names from ``PROBES``. Default: all probes that the run has data for, except the slow ones.
    model
        A converted network of the run's kind, for a run recorded from your own loop; without it only the weights are
        measured.
    loss
        Loss as a function of outputs and targets, for such a run. Default: cross-entropy.
    signals
        For a network that other code trained, a function that returns for a step, by layer, arrays under the names of
        `probes.records.arrays.SIGNALS`. Default: the signals that were recorded with it.
    progress
        Wraps the sequence of steps, as `rich.progress.track` does.
    scheduler
        Address of a dask cluster that does the work, such as ``tcp://host:8786``; its workers need wtdiag and the same
        file system. Default: threads.
    also
        Names of slow probes to measure besides the default.
    fast
        Measure weights, signals and the step-size number only; spectra, fixed points and the attribution are left out.
    again
        Measure every snapshot again, whatever ``analysis.nc`` holds.

    Returns
    -------
    xr.Dataset
        Dims step, layer, mode; each measure with units and its null expectation.

    Raises
    ------
    InputError
        If the directory is not a run, a snapshot is not whole, a probe is unknown, or the cluster cannot be used.
    """
    from wtdiag.diagnostics.analysis.analyze import analyze as measure
    from wtdiag.diagnostics.analysis.given_signals import GivenSignals, recorded_signals
    from wtdiag.trainers.observe.open_run import (
        attribution_of,
        context_of,
        fixed_feedback,
        is_probed,
        open_run,
        signals_of,
    )

    opened = open_run(run)
    earlier = None if again else _earlier(opened.path)

    if signals is not None or opened.is_foreign:
        if model is not None or loss is not None:
            raise InputError("model, loss: wtdiag cannot run the layers of other code; give signals= instead")
        ours = None if signals is None else GivenSignals(opened.path.resolve(), signals)
        read = ours or recorded_signals(opened)
        names = read.names(int(opened.steps[-1])) if read is not None and opened.steps.size else frozenset[str]()
        return measure(
            opened, probes, read, None, progress, scheduler, fixed_feedback(opened), also, fast,
            lambda step: None if signals is not None else "recorded", earlier, names,
        )  # fmt: skip

    def of_run(make: Callable[..., Any]) -> Any:
        if scheduler is None:
            return make(opened, model, loss)
        # The workers build the network, and it is not needed here.
        return _OfRun(make, opened.path.resolve(), model, loss) if is_probed(opened, model) else None

    return measure(
        opened, probes, of_run(signals_of), None if fast else of_run(attribution_of), progress, scheduler,
        fixed_feedback(opened), also, fast, context_of(opened, model, loss), earlier,
    )  # fmt: skip


def read_analysis(run: str | os.PathLike[str] | Run) -> xr.Dataset:
    """Read the analysis of a run that `report` or ``wtdiag analyze`` saved; nothing is measured, and torch not loaded.

    Parameters
    ----------
    run
        A run directory, an opened run, or an analysis file by its own path.

    Returns
    -------
    xr.Dataset
        As `analyze` returns it.

    Raises
    ------
    InputError
        If the run has no saved analysis, or the file does not hold one.

    Examples
    --------
    >>> read_analysis("docs/gallery/ia.nc").weight_angle.dims
    ('step', 'layer')
    """
    from wtdiag.diagnostics.analysis.analyze import read_analysis as read
    from wtdiag.probes.records.schema import ANALYSIS, Run

    given = run.path if isinstance(run, Run) else run
    check_path("run", given)
    path = Path(given)
    return read(path / ANALYSIS if path.is_dir() else path)


def _earlier(folder: Path) -> xr.Dataset | None:
    """Return the analysis in a folder; None if there is none that can be read."""
    from wtdiag.probes.records.schema import ANALYSIS

    try:
        return read_analysis(folder) if (folder / ANALYSIS).exists() else None
    except InputError:
        return None  # it is written anew


def enrich(analysis: xr.Dataset, folder: Path) -> tuple[xr.Dataset, list[str]]:
    """Return an analysis with what only the one in a folder has of the same snapshots, and the names of that."""
    from wtdiag.diagnostics.analysis.origins import enriched

    return enriched(analysis, _earlier(folder))


@dataclasses.dataclass
class _OfRun:
    """A function of a run's step, made in the process that first calls it: only the path travels between processes."""

    make: Callable[..., Any]
    path: Path
    model: nn.Module | None
    loss: Callable[[Tensor, Tensor], Tensor] | None

    @cached_property
    def _function(self) -> Callable[[int], Any]:
        from wtdiag.trainers.observe.open_run import open_run

        function: Callable[[int], Any] = self.make(open_run(self.path), self.model, self.loss)
        return function

    def __call__(self, step: int) -> Any:
        return self._function(step)


def diagnose(
    run: str | os.PathLike[str] | ModelRun,
    analysis: xr.Dataset | None = None,
    against: str | os.PathLike[str] | Reference | None = None,
) -> tuple[Finding, ...]:
    """Say what is wrong with a run: what, where, when, how sure, why, and what to try.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    analysis
        What `analyze` returned for it. Default: the ``analysis.nc`` that ``wtdiag analyze`` left.
    against
        Directory of a finished run that its accuracy is held against, as a rule one by backprop.

    Returns
    -------
    tuple of Finding
        The most severe first. Never empty: where nothing is wrong, a finding says so.

    Raises
    ------
    InputError
        If the directory is not a run, it is not analysed and ``analysis`` is not given, or the two runs cannot be
        compared.
    """
    import pandas as pd

    from wtdiag.diagnostics.analysis.owed import read_baseline
    from wtdiag.diagnostics.findings.diagnose import diagnose as find
    from wtdiag.probes.records.schema import METRICS
    from wtdiag.trainers.loop.changes import accepts_of
    from wtdiag.trainers.observe.open_run import open_run

    opened = open_run(run)
    metrics = opened.metrics if (opened.path / METRICS).exists() else pd.DataFrame()
    measured = read_analysis(opened) if analysis is None else analysis
    held, owed = _reference(opened, against), read_baseline(opened.path)
    return find(measured, opened.config, metrics, accepts_of(opened), held, owed)


def report(
    run: str | os.PathLike[str] | ModelRun,
    analysis: xr.Dataset | None = None,
    *,
    against: str | os.PathLike[str] | Reference | None = None,
    out: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = ("html", "pdf"),
    paper: str = "a4",
) -> list[Path]:
    """Write the report on a run, as ``wtdiag analyze`` does.

    Parameters
    ----------
    run
        A run directory, or an opened run.
    analysis
        What `analyze` returned for it; it is written beside the report as ``analysis.nc``, with its findings. Variables
        that only an earlier ``analysis.nc`` of the same snapshots holds are kept. Default: the ``analysis.nc`` in the
        run's directory.
    against
        Directory of a finished run that its accuracy is held against, as a rule one by backprop; the figures show it
        beside this run, and the findings are written again. Default: the run that its findings name, if they do.
    out
        Folder for everything that is written. Default: the run's directory.
    formats
        "html", "pdf", or both.
    paper
        Size of the PDF's pages, "a4" or "letter".

    Returns
    -------
    list of Path
        The reports written.

    Raises
    ------
    InputError
        If the directory is not a run, there is no analysis, or a file cannot be written.
    """
    from wtdiag.diagnostics.analysis.analyze import write_analysis
    from wtdiag.diagnostics.findings.finding import write_findings
    from wtdiag.probes.records.schema import ANALYSIS, FINDINGS, open_run
    from wtdiag.reports import write

    opened = open_run(run)
    held = _reference(opened, against)
    if analysis is None and held is not None:
        analysis = read_analysis(opened)
    if analysis is not None:
        # The analysis took long, so it is on the disk before the report is drawn.
        folder = opened.path if out is None else Path(out)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"out: {folder} cannot be made ({error.strerror}); expected a folder") from None
        analysis, _ = enrich(analysis, folder)
        write_analysis(analysis, folder / ANALYSIS)
        write_findings(diagnose(opened.path, analysis, held), folder / FINDINGS, held)
    beside = against if isinstance(against, (str, os.PathLike)) and held is not None else None
    kept = None if analysis is None else folder
    return write([opened.path], out=out, formats=formats, paper=paper, analysed=kept, against=beside)


def against_each(runs: Sequence[Run], against: str | os.PathLike[str] | None) -> dict[Path, Reference]:
    """Return by path what each run is held against: the run ``against``, or else its pair by backprop among them.

    Raises
    ------
    InputError
        If a run cannot be held against the one that is given.
    """
    from wtdiag.diagnostics.comparison.reference import references

    if against is None:
        return references(runs)
    held = {run.path: _reference(run, against) for run in runs}
    if not any(held.values()):
        raise InputError(f"against: {against} is the run itself; expected another one")
    return {path: reference for path, reference in held.items() if reference is not None}


def _reference(run: Run, against: str | os.PathLike[str] | Reference | None) -> Reference | None:
    """Return what a run is held against."""
    from wtdiag.diagnostics.comparison.reference import reference
    from wtdiag.probes.records.schema import open_run

    if isinstance(against, (str, os.PathLike)):
        return None if Path(against).resolve() == run.path.resolve() else reference(run, open_run(against))
    return against


def compare(
    runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], reference: str | None = None
) -> pd.DataFrame:
    """Compare runs of several rules, paired by seed, depth, model, data and all other settings.

    Parameters
    ----------
    runs
        Run directories, or a folder that holds them. Runs that are analysed are compared by their angles too.
    reference
        Rule that the others are compared with. Default: bp if it is there, otherwise the first run's rule.

    Returns
    -------
    pd.DataFrame
        As `diagnostics.comparison.compare.compare` describes: differences with their 95 % intervals over the pairs;
        ``.attrs["unpaired"]`` gives, for each run that could not be paired, the reason.

    Raises
    ------
    InputError
        If there is no run, a directory is not a run, or no run has the reference's rule.
    """
    from wtdiag.diagnostics.comparison.compare import compare as compare_runs
    from wtdiag.probes.records.schema import open_run

    paths = [runs] if isinstance(runs, (str, os.PathLike)) or not isinstance(runs, Iterable) else list(runs)
    return compare_runs([open_run(run) for run in run_directories(paths)], reference)


def run_directories(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the run directories that the paths name, each once.

    A folder that is not a run stands for the runs in it; files that an earlier comparison left beside them are ignored.
    """
    from wtdiag.probes.records.schema import CONFIG
    from wtdiag.reports.publish import COMPARISON

    directories: list[Path] = []
    for given in paths:
        check_path("run", given)
        path = Path(given)
        inside = sorted(config.parent for config in path.glob(f"*/{CONFIG}")) if not (path / CONFIG).exists() else []
        if inside or not (path.is_file() and path.stem == COMPARISON):
            directories += inside or [path]
    if not directories:
        raise InputError(f"runs: {', '.join(map(str, paths))} is not a run directory; expected at least one")
    return list(dict.fromkeys(directories))
