"""Curves of a grid's cells over training: accuracy and angles, averaged over seeds, by layer in small networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wtdiag.diagnostics.analysis.analyze import read_analysis
from wtdiag.diagnostics.analysis.layout import carrying
from wtdiag.diagnostics.analysis.reading import meaningful
from wtdiag.diagnostics.analysis.sentences import counted
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.evaluations import evaluated_on, evaluations
from wtdiag.probes.records.schema import ANALYSIS, METRICS, open_run
from wtdiag.reports.document.content import Block, Figure, Section, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.figures.curves import average
from wtdiag.reports.figures.style import Look, capital, fixed, printable, short
from wtdiag.reports.study.levels import conditions
from wtdiag.reports.study.shared import Methods, level, slug

_MOST = 4  # the most combinations of levels whose training is drawn
_LAYERS = 6  # the most layers of a network that is drawn layer by layer
_ANGLES = {"weight_angle": "weight angle", "error_angle": "error angle"}


@dataclass(frozen=True)
class _Trained:
    """Accuracy, the set that it was measured on, and analysis that a cell recorded over training."""

    accuracy: pd.Series
    tested_on: str
    analysis: xr.Dataset | None

    def angle(self, measure: str, layer: str) -> pd.Series:
        """Return one layer's angle by step; it is empty where it was not measured or means nothing."""
        analysis = self.analysis
        if analysis is None or measure not in analysis:
            return pd.Series(dtype=float)
        if layer not in analysis["layer"].values[meaningful(analysis, measure)]:
            return pd.Series(dtype=float)
        return _finite(analysis[measure].sel(layer=layer).values, analysis["step"].values)

    def mean(self, measure: str) -> pd.Series:
        """Return the mean weight angle of the layers that carry error, or the first layer's error angle, by step."""
        analysis = self.analysis
        if analysis is None or measure not in analysis:
            return pd.Series(dtype=float)
        values = analysis[measure].transpose("step", "layer").values
        values = values[:, :1] if measure == "error_angle" else values[:, carrying(analysis)]
        return _finite(values.mean(axis=1), analysis["step"].values)


def training(folder: Path, grid: xr.Dataset, methods: Methods) -> tuple[Section, ...]:
    """Draw what the runs recorded over training; return no section if there is no run."""
    combinations = conditions(grid)
    blocks: list[Block] = []
    errors: list[str] = []
    for here in (combinations[i] for i in spread(len(combinations), _MOST)):
        cells = _read(folder, grid.sel(here), methods, errors)
        if figure := _drawn(cells, level(here), methods):
            blocks.append(figure)
    if errors:
        blocks.append(Text(f"{counted(len(errors), 'run')} could not be read. The first error is: {errors[0]}."))
    if len(combinations) > _MOST and blocks:
        spread_out = f"Training is drawn at {_MOST} of {len(combinations)} combinations of levels, spread evenly."
        blocks.insert(0, Text(spread_out))
    return (Section("Over training", tuple(blocks)),) if blocks else ()


def _read(folder: Path, grid: xr.Dataset, methods: Methods, errors: list[str]) -> dict[str, list[_Trained]]:
    """Read the runs of every method; the errors of those that cannot be read are appended to ``errors``."""
    trained: dict[str, list[_Trained]] = {}
    root = folder.resolve()
    for name in methods.among(grid):
        for run in grid["run"].sel(rule=name).values.ravel():
            path = (root / str(run)).resolve()
            # Results may come from anyone, so runs outside their folder are not read.
            if not run or not path.is_relative_to(root) or not path.is_dir():
                continue
            try:
                trained.setdefault(name, []).append(_trained(path))
            except InputError as error:
                errors.append(printable(str(error)))
    return trained


def _trained(path: Path) -> _Trained:
    run = open_run(path)
    metrics = run.metrics if (path / METRICS).exists() else pd.DataFrame()
    analysis = read_analysis(path / ANALYSIS) if (path / ANALYSIS).exists() else None
    if analysis is not None:
        analysis = analysis.assign_coords(layer=[printable(str(each)) for each in analysis["layer"].values])
    return _Trained(100 * evaluations(metrics, run.config, "accuracy"), evaluated_on(metrics, run.config), analysis)


def _drawn(cells: Mapping[str, list[_Trained]], place: str, methods: Methods) -> Figure | None:
    """Draw accuracy and angles over training at one combination of levels: of every layer, in small networks."""
    layers = _layers(cells)
    on = "/".join(dict.fromkeys(cell.tested_on for runs in cells.values() for cell in runs)) or "test"
    series: dict[str, Callable[[_Trained], pd.Series]] = {f"{capital(on)} accuracy (%)": lambda cell: cell.accuracy}
    if layers:
        series |= {
            f"{capital(said)} {short(layer, 10)} (°)": _of(measure, layer)
            for measure, said in _ANGLES.items()
            for layer in layers
        }
    else:
        series["Mean weight angle (°)"] = lambda cell: cell.mean("weight_angle")
        series["Error angle, first layer (°)"] = lambda cell: cell.mean("error_angle")
    panels, rows, said = [], [], []
    drawn: dict[str, Look] = {}
    for title, get in series.items():
        by_rule = {rule: [each for each in map(get, runs) if len(each)] for rule, runs in cells.items()}
        if not any((each != 0).any() for runs in by_rule.values() for each in runs):
            continue  # such as the error angle of the last layer, which receives the exact error
        lines = []
        for rule, runs in by_rule.items():
            # With a panel for each layer the key has its own panel, because the names would not fit into each.
            lines += average("" if layers else rule, methods.look(rule), runs, gid=methods.gid(rule))
            if runs:
                drawn[rule] = methods.look(rule)
                ends = [float(each.iloc[-1]) for each in runs]
                rows.append((title, rule, fixed(float(np.mean(ends))), fixed(float(np.std(ends))), str(len(ends))))
        panels.append((sized.small_curves if layers else sized.curves)(lines, title=title))
        said.append(f"{title} at the last step: {', '.join(f'{row[1]} {row[2]}' for row in rows if row[0] == title)}.")
    if not panels:
        return None
    if layers:
        panels.append(sized.key(drawn))
    bands = "means over seeds; bands: ± one standard deviation" if any(row[-1] != "1" for row in rows) else "one seed"
    at = f" at {place}" if place else ""
    angles = (
        ""
        if len({row[0] for row in rows}) == 1
        else (
            " Weight angles are shown for layers whose feedback carries error; error angles lie between the error that "
            "trains a layer and that of exact backpropagation. By chance, an angle is 90°."
        )
    )
    return Figure(
        panels=tuple(panels),
        caption=f"Accuracy{' and angles' if angles else ''} over training{at}: {bands}.{angles}",
        alt=" ".join(said),
        data=Table(
            "The values at the end of training.",
            ("panel", "rule", "mean", "sd over seeds", "seeds"),
            tuple(rows),
            labels=2,
        ),
        name=f"training{slug(place)}",
        measures=(f"{on}_accuracy", *_ANGLES),
        subjects=methods.subjects,
    )


def _of(measure: str, layer: str) -> Callable[[_Trained], pd.Series]:
    return lambda cell: cell.angle(measure, layer)


def _layers(cells: Mapping[str, list[_Trained]]) -> list[str]:
    """Return the names of the layers, if all networks have the same few layers."""
    names = [
        [str(each) for each in cell.analysis["layer"].values]
        for runs in cells.values()
        for cell in runs
        if cell.analysis is not None
    ]
    return names[0] if names and all(each == names[0] for each in names) and len(names[0]) <= _LAYERS else []


def _finite(values: Any, steps: Any) -> pd.Series:
    series = pd.Series(np.asarray(values, dtype=float), index=steps)
    return series[np.isfinite(series)]
