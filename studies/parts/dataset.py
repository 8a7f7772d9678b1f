"""Results of a study, sweep or transfer, as one labelled dataset in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.comparison.results import RESULTS
from wtdiag.probes.records.netcdf import write_dataset
from wtdiag.probes.records.schema import CONFIG, read_json
from wtdiag.studies.engine.cell import Outcome

UNITS = {
    "test_accuracy": ("1", "test accuracy at the last step"),
    "test_loss": ("1", "test loss at the last step"),
    "validation_accuracy": ("1", "accuracy at the last step on held-out training examples"),
    "weight_angle": ("degree", "mean angle between W and B over the layers that carry error"),
    "error_angle": ("degree", "angle between the error that trains the first layer and exact backpropagation's"),
    "steps": ("1", "training steps taken"),
    "seconds": ("s", "time of the training steps"),
}
"""Units and long names of the variables that results may hold, whatever their kind."""


def write(results: xr.Dataset, folder: Path) -> Path:
    """Write ``results.nc`` into the folder that holds the runs, replacing an earlier one.

    The attribute ``classes``, from which chance follows, is the smallest number of classes of all runs.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    for name, (units, long_name) in UNITS.items():
        if name in results:
            results[name].attrs = {"units": units, "long_name": long_name}
    networks = [read_json(path).get("network") for path in folder.glob(f"*/*/{CONFIG}")]
    if classes := [network["classes"] for network in networks if isinstance(network, dict)]:
        results.attrs["classes"] = min(classes)
    path = folder / RESULTS
    write_dataset(path, results)
    return path


def by_example(outcomes: Mapping[tuple[int, ...], Outcome], dims: Sequence[str], shape: tuple[int, ...]) -> Any:
    """Return which test examples each run had right, as the variable ``right`` of results; {} if no run tells.

    Parameters
    ----------
    outcomes
        By its place in ``shape``, the outcome of a run.
    dims
        Names of the dims; the examples are a further one.
    """
    count = max((len(outcome.right) for outcome in outcomes.values()), default=0)
    if not count:
        return {}
    values = np.full((*shape, count), -1, np.int8)
    for at, outcome in outcomes.items():
        values[at][: len(outcome.right)] = np.frombuffer(outcome.right, np.uint8)
    about = {"long_name": "whether a test example was right at the last step; -1 if it is not known"}
    return {"right": ((*dims, "example"), values, about)}


def texts(shape: tuple[int, ...], text: str = "") -> np.ndarray[Any, Any]:
    """Return an array that holds one text everywhere."""
    return np.full(shape, text, dtype=object)


def labels(levels: list[Any]) -> np.ndarray[Any, Any]:
    """Return levels as the coordinate of a dim: as numbers if all are numbers, otherwise as texts.

    Examples
    --------
    >>> labels([4, 8]).dtype.kind, labels(["mlp", 8]).tolist()
    ('i', ['mlp', '8'])
    """
    if all(type(level) is int for level in levels):
        return np.array(levels, dtype=np.int64)
    if all(type(level) in (int, float) for level in levels):
        return np.array(levels, dtype=np.float64)
    return np.array([str(level) for level in levels], dtype=object)
