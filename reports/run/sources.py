"""The data of a report: the analysis, findings, settings and metrics of a run, checked and cleaned once."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wtdiag.diagnostics.analysis.accuracy import Accuracy, Reference, accuracy
from wtdiag.diagnostics.analysis.analyze import read_analysis
from wtdiag.diagnostics.analysis.attacked import Attacked, read_attacked
from wtdiag.diagnostics.analysis.owed import Baseline, read_baseline
from wtdiag.diagnostics.findings.finding import Finding, read_findings, read_reference
from wtdiag.diagnostics.findings.instability import stability
from wtdiag.probes.errors import InputError
from wtdiag.probes.records import evaluations
from wtdiag.probes.records.config import rule_name
from wtdiag.probes.records.schema import ANALYSIS, CONFIG, FINDINGS, METRICS, Run, open_run, read_written
from wtdiag.reports.figures.axes import Event
from wtdiag.reports.figures.style import printable

UNDIAGNOSED = "Not diagnosed"
NO_FINDINGS = "the run has no findings; `wtdiag analyze` writes them into findings.json."


@dataclass(frozen=True)
class Beside:
    """A run that the figures of another one show beside it.

    Attributes
    ----------
    name : str
        Its rule, with the folder's name if the two runs have the same rule.
    rule : str
        Its rule.
    config, metrics
        As in `Source`.
    analysis : Dataset or None
        Its analysis, if it has one of the same layers.
    """

    name: str
    rule: str
    config: dict[str, Any]
    metrics: pd.DataFrame
    analysis: xr.Dataset | None = None

    def evaluation(self, name: str) -> pd.Series:
        """Return "accuracy" or "loss" of the evaluations by step; empty if there are none."""
        return evaluations.column(self.metrics, f"{evaluations.evaluated_on(self.metrics, self.config)}_{name}")


@dataclass(frozen=True)
class Source:
    """One analysed run.

    Attributes
    ----------
    name : str
        Its name in the report.
    path : Path
        Its directory.
    config : dict
        ``config.json``, with all text made printable.
    metrics : DataFrame
        The numeric columns of ``metrics.jsonl``; empty for a run that was recorded without metrics.
    analysis : Dataset
        ``analysis.nc``, with the names of layers made printable.
    findings : tuple of Finding, or None
        ``findings.json``; None for a run that was not diagnosed.
    events : tuple of Event
        Events that the metrics note, such as jumps of the loss, and the step at which the run diverged.
    snapshots : int
        Number of snapshots in ``analysis.nc``.
    reference : Reference or None
        The run that its accuracy was held against when it was diagnosed.
    date : str
        The day on which the files of the run were last written; "" if it is not known.
    against : Beside or None
        A run that the figures show beside this one.
    stability : DataFrame
        Predicted and observed stability of each layer, from `diagnostics.findings.instability.stability`.
    baseline : Baseline or None
        What ``wtdiag baseline`` measured, if it did.
    attacked : Attacked or None
        What ``wtdiag attack`` measured, if it did.
    """

    name: str
    path: Path
    config: dict[str, Any]
    metrics: pd.DataFrame
    analysis: xr.Dataset
    findings: tuple[Finding, ...] | None
    events: tuple[Event, ...]
    snapshots: int
    reference: Reference | None
    stability: pd.DataFrame
    date: str = ""
    against: Beside | None = None
    baseline: Baseline | None = None
    attacked: Attacked | None = None

    @property
    def rule(self) -> str:
        """Name of the rule, or "unknown" if the run does not say."""
        return rule_name(self.config)

    @property
    def is_backprop(self) -> bool:
        """Whether W itself carries the error, so that nothing is to be said about B."""
        return self.rule == "bp"

    @property
    def of_rule(self) -> str:
        """The rule in brackets after a space; empty if the run does not say."""
        return "" if self.rule == "unknown" else f" (rule {self.rule})"

    @property
    def first_layer(self) -> str:
        """What the first layer of the analysis is: code that is not wtdiag's may have recorded only some layers."""
        return "first recorded layer" if "foreign" in self.config else "first layer"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings; empty for a run that was recorded in the user's own training loop."""
        settings = self.config.get("settings")
        return settings if isinstance(settings, dict) else {}

    @property
    def accuracy(self) -> Accuracy:
        """The accuracy, that of chance, and that of the reference."""
        return accuracy(self.metrics, self.config, self.reference)

    @property
    def tested_on(self) -> str:
        """What the network was evaluated on: the "test" set, or the "validation" set, held out of the training set."""
        return evaluations.evaluated_on(self.metrics, self.config)

    def evaluation(self, name: str) -> pd.Series:
        """Return "accuracy" or "loss" of the evaluations, as `metric` does."""
        return self.metric(f"{self.tested_on}_{name}")

    def metric(self, name: str) -> pd.Series:
        """Return the finite values of a metric by step; empty if it was not logged."""
        return evaluations.column(self.metrics, name)


def load(
    path: str | os.PathLike[str],
    name: str | None = None,
    analysed: Path | None = None,
    against: str | os.PathLike[str] | None = None,
) -> Source:
    """Read what a report needs from the run directory ``path``, without opening its snapshots.

    The analysis and the findings are read from ``analysed``, by default the run directory. The figures show the run
    ``against`` beside this one, by default the one that its accuracy was held against, if that still lies beside it.

    Raises
    ------
    InputError
        If ``path`` is not a run directory, has not been analysed yet, or holds damaged files.
    """
    run = open_run(path)
    metrics = run.metrics if (run.path / METRICS).exists() else pd.DataFrame()
    config = _clean(run.config)
    folder = analysed or run.path
    findings, measured = folder / FINDINGS, read_written(read_analysis, folder / ANALYSIS)
    analysis = _clean_analysis(measured)
    reference = read_written(read_reference, findings) if findings.exists() else None
    return Source(
        name=printable(name or run.path.resolve().name),
        path=run.path,
        config=config,
        metrics=metrics.apply(_numbers),
        analysis=analysis,
        findings=tuple(map(_printable, read_written(read_findings, findings))) if findings.exists() else None,
        events=_events(metrics, config),
        snapshots=int(analysis.sizes["step"]),
        reference=_printed(reference),
        stability=stability(measured, run.config, metrics).set_axis(analysis.layer.values),
        date=_date(run.path),
        against=_beside(run, analysis, reference, against),
        baseline=read_baseline(run.path),
        attacked=read_attacked(run.path),
    )


def _beside(
    run: Run, analysis: xr.Dataset, reference: Reference | None, given: str | os.PathLike[str] | None
) -> Beside | None:
    if given is not None:
        other = open_run(given)
    elif reference is not None and Path(reference.name).name == reference.name:
        path = run.path.resolve().parent / reference.name
        try:  # the folder may have gone, and another one may have its name
            other = open_run(path) if not path.is_symlink() else run
        except InputError:
            return None
        if rule_name(other.config) != reference.rule:
            return None
    else:
        return None
    if other.path.resolve() == run.path.resolve():
        return None
    config, rule = _clean(other.config), printable(rule_name(other.config))
    name = rule if rule != rule_name(run.config) else f"{printable(other.path.resolve().name)} ({rule})"
    metrics = other.metrics if (other.path / METRICS).exists() else pd.DataFrame()
    return Beside(name, rule, config, metrics.apply(_numbers), _alike(other, analysis))


def _alike(other: Run, analysis: xr.Dataset) -> xr.Dataset | None:
    """Return the analysis of another run, if it has one of the same layers that can be read."""
    try:
        theirs = _clean_analysis(read_analysis(other.path / ANALYSIS))
    except InputError:
        return None
    return theirs if theirs.layer.values.tolist() == analysis.layer.values.tolist() else None


def _date(folder: Path) -> str:
    """Return the day on which the metrics, or else the settings, were last written, as in "3 May 2026"."""
    for name in (METRICS, CONFIG):
        try:
            written = datetime.fromtimestamp((folder / name).lstat().st_mtime, tz=UTC)
        except (OSError, OverflowError, ValueError):
            continue
        return f"{written.day} {written:%B %Y}"
    return ""


def _printable(finding: Finding) -> Finding:
    values = {field.name: getattr(finding, field.name) for field in dataclasses.fields(finding)}
    texts: dict[str, Any] = {name: printable(value) for name, value in values.items() if isinstance(value, str)}
    evidence = tuple(
        dataclasses.replace(
            number,
            measure=printable(number.measure),
            relation=printable(number.relation),
            units=printable(number.units),
        )
        for number in finding.evidence
    )
    return dataclasses.replace(finding, **texts, evidence=evidence, advice=tuple(map(printable, finding.advice)))


def _printed(reference: Reference | None) -> Reference | None:
    if reference is None:
        return None
    name, rule, on, differs = map(printable, (reference.name, reference.rule, reference.on, reference.differs))
    return Reference(name, rule, reference.accuracy, on, differs)


def _events(metrics: pd.DataFrame, config: dict[str, Any]) -> tuple[Event, ...]:
    events: list[Event] = []
    if {"step", "event"} <= set(metrics):
        noted = metrics[metrics["event"].notna()]
        for step, text in zip(_numbers(noted["step"]), noted["event"], strict=True):
            if isinstance(text, str) and np.isfinite(step):
                events.append(Event(int(step), printable(text)))
    match config.get("diverged"):
        case {"step": int(step), **rest}:
            events.append(Event(step, f"diverged ({rest['what']})" if "what" in rest else "diverged"))
    return tuple(sorted(events))


def _clean_analysis(analysis: xr.Dataset) -> xr.Dataset:
    """Replace infinities by NaN, and make the names of layers printable."""
    analysis = analysis.where(np.isfinite(analysis))
    return analysis.assign_coords(layer=[printable(str(name)) for name in analysis.layer.values])


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    """Return a column of the metrics as numbers; what is none becomes NaN."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.map(lambda value: value if isinstance(value, int | float) else float("nan"))
    return column.astype(float)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return printable(value) if isinstance(value, str) else value
