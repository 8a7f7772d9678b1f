"""Tables of comparisons, grids, sweeps and transfers for a terminal, at most 80 columns wide."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from rich.table import Table
from rich.text import Text

from wtdiag.diagnostics.comparison.intervals import of_mean
from wtdiag.diagnostics.comparison.robustness import reached, relative
from wtdiag.probes.errors import printable

WIDTH = 80

_ACROSS = 5  # architectures side by side in a table
_SHARES = ("test_accuracy", "validation_accuracy", "depth_gap")  # told in percent, their differences in points
_LEVEL = 0.95  # share of the best accuracy of backprop that a configuration is asked to reach


def comparison_tables(table: pd.DataFrame) -> Iterator[Table]:
    """Yield a table for each set of conditions in the result of `diagnostics.comparison.compare.compare`."""
    for (conditions, reference), rows in table.groupby(["conditions", "reference"], sort=False):
        title = Text(printable(f"{conditions}; reference: {reference}"), style="bold")
        note = (
            Text("* with a run that diverged, which counts as answering at chance") if rows["diverged"].any() else None
        )
        shown = Table(
            title=title, caption=note, title_justify="left", caption_justify="left", box=None, pad_edge=False,
            padding=(0, 2, 0, 0),
        )  # fmt: skip
        for column in ("rule", "measure"):
            shown.add_column(column)
        for column in ("mean", "reference", "difference", "95 % interval", "n"):
            shown.add_column(column, justify="right", no_wrap=True)
        for row in rows.itertuples():
            names = Text(printable(row.rule), overflow="fold"), row.measure.replace("_", " ")
            unit = " points" if row.measure in _SHARES else ""
            interval = "–" if math.isnan(row.low) else f"{_number(row.low, row)} to {_number(row.high, row)}{unit}"
            percent = unit and " %"
            numbers = (
                f"{_number(row.mean, row)}{percent}",
                f"{_number(row.reference_mean, row)}{percent}",
                f"{_number(row.difference, row)}{unit}",
            )
            shown.add_row(*names, *numbers, interval, f"{row.n}{'*' if row.diverged else ''}")
        yield shown


def grid_table(results: xr.Dataset) -> Table:
    """Return a table of the test accuracy over seeds, for every combination of a study's other factors."""
    table = Table(
        title=Text("test accuracy at the last step, %", style="bold"), title_justify="left", box=None, pad_edge=False
    )
    factors = [str(name) for name in results["status"].dims if name != "seed"]
    shown = [name for name in factors if name == "rule" or results.sizes[name] > 1]
    for name in shown:
        table.add_column(name)
    for name in ("mean", "95 % interval", "seeds", ""):
        table.add_column(name, justify="right" if name else "left")
    cells = results[["status", "test_accuracy"]].stack(cell=factors).transpose("cell", "seed")
    for cell in (cells.isel(cell=i) for i in range(cells.sizes["cell"])):
        statuses = Counter(cell["status"].values.tolist())
        if statuses.keys() == {"absent"}:
            continue
        values = cell["test_accuracy"].values[np.isfinite(cell["test_accuracy"].values)]
        low, high = np.clip(of_mean(values), 0, 1).tolist()  # few seeds give an interval beyond what is possible
        rest = ", ".join(
            f"{count} {status}" for status, count in statuses.items() if status not in ("finished", "absent")
        )
        table.add_row(
            *(Text(printable(str(cell[name].item())), overflow="fold") for name in shown),
            f"{100 * values.mean():.1f}" if len(values) else "–",
            "–" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}",
            *(str(len(values)), printable(rest)),
        )
    return table


def sweep_table(results: xr.Dataset) -> Table:
    """Return the table of a sweep: a row for each rule, no more than 80 columns wide."""
    near_best = reached(results, [_LEVEL])
    counts = near_best["count"].to_pandas()
    result = Table(box=None, pad_edge=False)
    result.add_column("rule")
    for column in ("trials", *counts, "best, %", f"≥ {_LEVEL:.0%} of {results.attrs['reference']}'s best"):
        result.add_column(column, justify="right")
    best = results["validation_accuracy"].where(results["status"] == "finished").max("trial")
    for rule, row in counts.iterrows():
        share, accuracy = float(near_best["share"].sel(rule=rule, level=_LEVEL)), float(best.sel(rule=rule))
        ends = [
            str(row.sum()),
            *map(str, row),
            *("" if x != x else f"{x:{how}}" for x, how in ((100 * accuracy, ".1f"), (share, ".0%"))),
        ]
        result.add_row(str(rule), *ends)
    return result


def transfer_tables(results: xr.Dataset) -> Iterator[Table]:
    """Yield the accuracy relative to backprop, a row for each rule, in tables of no more than 80 columns."""
    accuracies = relative(results)
    labels = [str(label) for label in accuracies["architecture"].values]
    for first in range(0, len(labels), _ACROSS):
        shown = labels[first : first + _ACROSS]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("accuracy, % of bp's" if not first else "")
        for label in shown:
            table.add_column(Text(printable(label), overflow="fold"), justify="right")
        for rule in accuracies["rule"].values:
            cells = (accuracies.sel(rule=rule, architecture=label) for label in shown)
            table.add_row(Text(printable(str(rule)), overflow="fold"), *map(_relative, cells))
        yield table


def _number(value: float, row: pd.Series) -> str:
    if row.measure in _SHARES:
        return f"{100 * value:z.1f}"
    return f"{value:.1f}°" if row.units == "degree" else f"{value:.3f}"


def _relative(accuracies: xr.Dataset) -> str:
    """Return the mean and its interval in two lines, and the number of seeds that are left out."""
    mean, low, high = (100 * float(np.maximum(0.0, accuracies[name])) for name in ("mean", "low", "high"))
    if mean != mean:
        return "–"
    lines = [f"{mean:.1f}", f"{low:.0f} to {high:.0f}" if low == low else f"{int(accuracies['n'])} seed"]
    if left_out := int(accuracies["left_out"]):
        lines.append(f"{left_out} left out")
    return "\n".join(lines)
