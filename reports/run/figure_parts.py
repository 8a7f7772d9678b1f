"""What sections of a run's report share: figures over step and layer, what they leave out, what stands beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as Panel

from wtdiag.diagnostics.analysis.reading import about
from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.reports.document.content import Figure, Frames, Subjects
from wtdiag.reports.figures.axes import exact
from wtdiag.reports.run.figure_tables import history
from wtdiag.reports.run.sources import Source
from wtdiag.reports.run.summary import trend


def layer_figure(
    analysis: xr.Dataset,
    names: list[str],
    panels: Sequence[Panel],
    caption: str,
    name: str,
    subjects: Subjects,
    frames: tuple[Frames, ...] = (),
    also: tuple[str, ...] = (),
) -> Figure:
    """Return a figure of measures over step and layer, and of those in ``also``, with its text and numbers."""
    alt = " ".join(trend(analysis, name) for name in names)
    return Figure(tuple(panels), caption, alt, history(analysis, names), name, (*names, *also), subjects, frames)


def events_said(source: Source) -> str:
    """Return a sentence that explains the marks of events; empty if there are none."""
    if not source.events:
        return ""
    marked = "; ".join(f"{event.text} at step {event.step}" for event in source.events[:3])
    more = f"; and {len(source.events) - 3} more" if len(source.events) > 3 else ""
    return f" Vertical dashed lines mark events: {marked}{more}."


def against(source: Source, *names: str) -> xr.Dataset | None:
    """Return the analysis of the run shown beside this one, if that has values other than 0 of some measures."""
    other = None if source.against is None else source.against.analysis
    if other is None or any(name not in other or not (np.abs(other[name]) > 0).any() for name in names):
        return None
    return other


def exact_said(analysis: xr.Dataset, names: Sequence[str], shown: str) -> str:
    """Return a sentence on the layers whose angles are 0 in all snapshots, and how these are shown."""
    hidden = np.any([exact(analysis, name) for name in names], axis=0)
    if not 0 < hidden.sum() < 4:
        return ""
    return f" The error that trains {listed(analysis.layer.values[hidden].tolist())} is exact (0°) and {shown}."


def by_ratio(analysis: xr.Dataset, measure: str) -> bool:
    """Return whether a measure is compared by ratios, not by differences."""
    return about(analysis[measure]).scale == "log"


def last_of(analysis: xr.Dataset, measure: str) -> int:
    """Return the index of the last snapshot at which a measure has a value, or of the last one if none has."""
    measured = np.isfinite(analysis[measure].transpose("step", "layer").values).any(axis=1)
    return int(np.flatnonzero(measured)[-1]) if measured.any() else len(measured) - 1


def present(analysis: xr.Dataset, names: Sequence[str]) -> list[str]:
    """Return the measures that have a value somewhere; a chart of the others would be empty."""
    return [name for name in names if name in analysis and np.isfinite(analysis[name].values).any()]
