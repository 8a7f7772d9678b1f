"""Cells of a grid over training: accuracy and angles, averaged over seeds, layer by layer in small networks."""

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
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import ANALYSIS, METRICS, open_run
from wtdiag.reports.document.content import Block, Figure, Section, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import spread
from wtdiag.reports.figures.curves import average
from wtdiag.reports.figures.style import Look, capital, fixed, printable, short
from wtdiag.reports.study.levels import conditions
from wtdiag.reports.study.shared import Methods, counted, level, slug

_MOST = 4  # combinations of levels whose training is drawn
_LAYERS = 6  # of the largest network that is drawn layer by layer
_ANGLES = {"weight_angle": "weight angle", "error_angle": "error angle"}


@dataclass(frozen=True)
class _Trained:
    """What a cell recorded over training."""

    accuracy: pd.Series
    analysis: xr.Dataset | None

    def angle(self, measure: str, layer: str) -> pd.Series:
        """One layer's angle by step; empty where it was not measured or means nothing."""
        found = self.analysis
        if found is None or measure not in found or layer not in found["layer"].values[meaningful(found, measure)]:
            return pd.Series(dtype=float)
        return _finite(found[measure].sel(layer=layer).values, found["step"].values)

    def mean(self, measure: str) -> pd.Series:
        """Mean weight angle of the layers that carry error, or the first layer's error angle, by step."""
        found = self.analysis
        if found is None or measure not in found:
            return pd.Series(dtype=float)
        values = found[measure].transpose("step", "layer").values
        values = values[:, :1] if measure == "error_angle" else values[:, carrying(found)]
        return _finite(values.mean(axis=1), found["step"].values)


def training(folder: Path, grid: xr.Dataset, methods: Methods) -> tuple[Section, ...]:
    """Draw what the runs recorded over training; nothing where none is there."""
    every = conditions(grid)
    blocks: list[Block] = []
    lost: list[str] = []
    for here in (every[i] for i in spread(len(every), _MOST)):
        cells = _read(folder, grid.sel(here), methods, lost)
        if figure := _drawn(cells, level(here), methods):
            blocks.append(figure)
    if lost:
        blocks.append(Text(f"{counted(len(lost), 'run')} could not be read. The first: {lost[0]}."))
    if len(every) > _MOST and blocks:
        blocks.insert(0, Text(f"Drawn at {_MOST} of {len(every)} combinations of levels, spread evenly."))
    return (Section("Over training", tuple(blocks)),) if blocks else ()


def _read(folder: Path, grid: xr.Dataset, methods: Methods, lost: list[str]) -> dict[str, list[_Trained]]:
    """Read the runs of every method; one that cannot be read is noted."""
    found: dict[str, list[_Trained]] = {}
    root = folder.resolve()
    for name in methods.among(grid):
        for run in grid["run"].sel(rule=name).values.ravel():
            path = (root / str(run)).resolve()
            # Results may come from anyone: their runs lie in their folder, or are not looked at.
            if not run or not path.is_relative_to(root) or not path.is_dir():
                continue
            try:
                found.setdefault(name, []).append(_trained(path))
            except InputError as error:
                lost.append(printable(str(error)))
    return found


def _trained(path: Path) -> _Trained:
    run = open_run(path)
    metrics = run.metrics if (path / METRICS).exists() else pd.DataFrame()
    accuracy = pd.Series(dtype=float)
    if {"step", "test_accuracy"} <= set(metrics):
        numbers = metrics[["step", "test_accuracy"]].apply(pd.to_numeric, errors="coerce").dropna()
        accuracy = 100 * numbers.drop_duplicates("step", keep="last").set_index("step")["test_accuracy"]
    analysis = read_analysis(path / ANALYSIS) if (path / ANALYSIS).exists() else None
    if analysis is not None:
        analysis = analysis.assign_coords(layer=[printable(str(each)) for each in analysis["layer"].values])
    return _Trained(accuracy, analysis)


def _drawn(cells: Mapping[str, list[_Trained]], place: str, methods: Methods) -> Figure | None:
    """Draw accuracy and angles over training at one combination of levels: of every layer, in small networks."""
    layers = _layers(cells)
    series: dict[str, Callable[[_Trained], pd.Series]] = {"Test accuracy (%)": lambda cell: cell.accuracy}
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
        found = {rule: [each for each in map(get, runs) if len(each)] for rule, runs in cells.items()}
        if not any((each != 0).any() for runs in found.values() for each in runs):
            continue  # such as the error angle of the last layer, to which the exact error comes
        lines = []
        for rule, runs in found.items():
            # With layers the key has a panel of its own: names would not fit into each.
            lines += average("" if layers else rule, methods.look(rule), runs, gid=methods.gid(rule))
            if runs:
                drawn[rule] = methods.look(rule)
                ends = [float(each.iloc[-1]) for each in runs]
                rows.append((title, rule, fixed(float(np.mean(ends))), fixed(float(np.std(ends))), str(len(ends))))
        panels.append((sized.small_curves if layers else sized.curves)(lines, title=title))
        said.append(f"{title}, last: {', '.join(f'{row[1]} {row[2]}' for row in rows if row[0] == title)}.")
    if not panels:
        return None
    if layers:
        panels.append(sized.key(drawn))
    bands = "means over seeds; bands: ± one standard deviation" if any(row[-1] != "1" for row in rows) else "one seed"
    at = f" at {place}" if place else ""
    return Figure(
        panels=tuple(panels),
        caption=f"Over training{at}: {bands}. Weight angles are those of layers whose feedback carries error, error "
        "angles those of the error that trains a layer to exact backpropagation's. Chance gives 90°.",
        alt=" ".join(said),
        data=Table("At the end.", ("panel", "rule", "mean", "sd over seeds", "seeds"), tuple(rows), labels=2),
        name=f"training{slug(place)}",
        measures=("test_accuracy", *_ANGLES),
        subjects=methods.subjects,
    )


def _of(measure: str, layer: str) -> Callable[[_Trained], pd.Series]:
    return lambda cell: cell.angle(measure, layer)


def _layers(cells: Mapping[str, list[_Trained]]) -> list[str]:
    """Name the layers, if all networks have the same few."""
    found = [
        [str(each) for each in cell.analysis["layer"].values]
        for runs in cells.values()
        for cell in runs
        if cell.analysis is not None
    ]
    return found[0] if found and all(each == found[0] for each in found) and len(found[0]) <= _LAYERS else []


def _finite(values: Any, steps: Any) -> pd.Series:
    found = pd.Series(np.asarray(values, dtype=float), index=steps)
    return found[np.isfinite(found)]
