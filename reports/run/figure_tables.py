"""The numbers behind the figures, as tables."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from wtdiag.diagnostics.analysis.layout import carrying, last_measured
from wtdiag.reports.document.content import Subjects, Table
from wtdiag.reports.figures.axes import measure_title, spread
from wtdiag.reports.figures.style import fixed, number, percent
from wtdiag.reports.run.sources import Source

_UNUSED = "Layers marked * send no error on, so their feedback carries nothing."


def formatter(measure: xr.DataArray) -> Callable[[float], str]:
    """Return the function that formats the values of a measure."""
    return degrees if measure.attrs.get("units") == "degree" else number


def degrees(value: float) -> str:
    """Format an angle.

    Examples
    --------
    >>> degrees(89.96)
    '90.0°'
    """
    return fixed(value, suffix="°")


def layers_of(analysis: xr.Dataset, name: str = "layers") -> Subjects:
    """Return the layers of a run as the subjects of figures and tables, under a name that is unique in a report."""
    return Subjects(
        name,
        "layer",
        names=tuple(map(str, analysis.layer.values)),
        steps=tuple(map(int, analysis.step.values)),
        drawn=last_measured(analysis),
    )


def layer_table(analysis: xr.Dataset, names: list[str]) -> Table:
    """Tabulate measures of every layer at the last snapshot that holds any."""
    now = analysis.isel(step=last_measured(analysis))
    kinds = now["kind"].values if "kind" in now.coords else ["–"] * now.sizes["layer"]
    columns = [map(formatter(now[name]), now[name].values) for name in names]
    layers = [f"{name}{'' if carries else ' *'}" for name, carries in zip(now.layer.values, carrying(now), strict=True)]
    return Table(
        caption=f"Every layer at step {int(now.step)}.{unused(now)}",
        columns=("layer", "kind", *(measure_title(now[name]) for name in names)),
        rows=tuple(zip(layers, map(str, kinds), *columns, strict=True)),
        labels=2,
        subjects=layers_of(analysis),
        picks=tuple(range(len(layers))),
    )


def history(analysis: xr.Dataset, names: list[str]) -> Table:
    """Tabulate measures of layers, or of the whole network, over training, at as many snapshots as fit on a page."""
    shown = spread(analysis.sizes["step"], 8)
    rows = []
    for name in names:
        measure = analysis[name] if "layer" in analysis[name].dims else analysis[name].expand_dims(layer=["all"])
        measure = measure.transpose("layer", "step")
        show = formatter(measure)
        for layer, values in zip(measure.layer.values, measure.values[:, shown], strict=True):
            rows.append((measure_title(measure), str(layer), *map(show, values)))
    whole = "" if len(shown) == analysis.sizes["step"] else " at some of the snapshots; analysis.nc holds all"
    heads = ("measure", "layer", *(f"step {step}" for step in analysis.step.values[shown]))
    return Table(f"The numbers drawn{whole}.", heads, tuple(rows), labels=2)


def spectra_table(analysis: xr.Dataset, layers: list[int]) -> Table:
    """Tabulate singular values of some layers at the last snapshot that holds any."""
    now = analysis.isel(step=last_measured(analysis))
    rows = []
    for layer in layers:
        for side, sign in (("forward", "W"), ("feedback", "B")):
            modes = now[f"{side}_singular_values"].isel(layer=layer).dropna("mode").values
            shown = [number(modes[i]) for i in spread(len(modes), 8)] if len(modes) else []
            rows.append((str(now.layer.values[layer]), sign, *shown, *["–"] * (8 - len(shown))))
    heads = ("layer", "matrix", "largest", *([""] * 6), "smallest")
    caption = f"Singular values at step {int(now.step)}, in descending order, evenly spread over the modes."
    return Table(caption, heads, tuple(rows), labels=2)


def unused(analysis: xr.Dataset) -> str:
    """Return a sentence that explains the mark of layers that send no error on; empty if there are none."""
    return "" if carrying(analysis).all() else f" {_UNUSED}"


def evaluations(source: Source) -> Table:
    """Tabulate accuracy and loss at up to twelve of the evaluations."""
    on = source.tested_on
    metrics = {name: source.metric(name) for name in ("accuracy", f"{on}_accuracy", "loss", f"{on}_loss")}
    tested = metrics[f"{on}_accuracy"] if len(metrics[f"{on}_accuracy"]) else metrics["loss"]
    rows = []
    for step in tested.index[spread(len(tested), 12)] if len(tested) else ():
        here = {name: series[series.index == step] for name, series in metrics.items()}
        cells = (
            "–" if series.empty else (percent if name.endswith("accuracy") else number)(series.iloc[-1])
            for name, series in here.items()
        )
        rows.append((f"{step:.0f}", *cells))
    heads = ("step", "training accuracy", f"{on} accuracy", "training loss", f"{on} loss")
    kept = [0, *(i + 1 for i, series in enumerate(metrics.values()) if len(series))]
    what = "evaluations" if len(metrics[f"{on}_accuracy"]) else "logged steps"
    said = " and ".join(name for name in ("accuracy", "loss") if any(name in heads[i] for i in kept)).capitalize()
    shown = tuple(tuple(row[i] for i in kept) for row in rows)
    return Table(f"{said} at some of the {what}.", tuple(heads[i] for i in kept), shown)
