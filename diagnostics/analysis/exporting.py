"""A run and its analysis in formats that other programs read: a zarr store, and tables as Parquet or CSV."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from wtdiag.diagnostics.analysis.analyze import read_analysis
from wtdiag.diagnostics.analysis.layout import measures
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.schema import (
    ANALYSIS,
    METRICS,
    Run,
    encode_layer,
    layer_names,
    open_snapshot,
    read_layer,
    snapshot_path,
    write_aside,
)

FORMATS = {"zarr": "zarr", "parquet": "pyarrow", "csv": ""}
"""The formats, each with the package that it needs; the extra that installs it has the format's name."""
_STORE = "run.zarr"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(run: Run, folder: Path, formats: Collection[str], *, force: bool = False) -> list[Path]:
    """Write a run into a folder, in some formats.

    The zarr store ``run.zarr`` holds a group for each layer with ``forward`` and ``feedback`` over (step, out, in, …),
    the groups ``metrics`` and ``analysis``, and the config in its attributes. The tables ``metrics``, ``analysis`` (a
    row for each step and layer) and ``spectra`` (a row for each step, layer and mode) are files of their own.

    Parameters
    ----------
    run
        A recorded run.
    folder
        Where to write; it is made if it is not there.
    formats
        Names of `FORMATS`.
    force
        Whether to replace files that are there.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        If a format is not known or its package is not installed, a file is there and ``force`` is not given, the run
        holds nothing to write, or something cannot be read or written.
    """
    for each in formats:
        check_one_of("format", each, FORMATS)
        if FORMATS[each] and importlib.util.find_spec(FORMATS[each]) is None:
            raise InputError(f"{each}: needs {FORMATS[each]}; install it with: pip install 'wtdiag[{each}]'")
    analysis = read_analysis(run.path / ANALYSIS) if (run.path / ANALYSIS).exists() else None
    metrics = run.metrics if (run.path / METRICS).exists() else pd.DataFrame()
    tables = _tables(analysis, metrics)
    if not tables and "zarr" not in formats:
        raise InputError(f"{run.path}: has no metrics and no analysis; `wtdiag analyze {run.path}` makes one")
    writers: dict[Path, Callable[[Path], None]] = {}
    if "zarr" in formats:
        writers[folder / _STORE] = lambda path: _write_store(path, run, analysis, metrics)
    for each in ("parquet", "csv"):
        if each in formats:
            writers |= {folder / f"{name}.{each}": _writer_of(table, each) for name, table in tables.items()}
    if (there := next((path for path in writers if path.exists()), None)) and not force:
        raise InputError(f"{there}: exists already; choose another folder with out, or replace it with force")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); expected a folder") from error
    for path, write in writers.items():
        write(path)
    return list(writers)


def _tables(analysis: xr.Dataset | None, metrics: pd.DataFrame) -> dict[str, pd.DataFrame]:
    tables = {} if metrics.empty else {"metrics": _plain(metrics)}
    if analysis is not None:
        for name, dims in (("analysis", {"step", "layer"}), ("spectra", {"step", "layer", "mode"})):
            names = [str(each) for each in analysis.data_vars if _belongs(analysis[each], dims)]
            if names:
                table = analysis[names].to_dataframe().dropna(how="all", subset=names).reset_index()
                table.attrs = {
                    each: analysis[each].attrs.get("units", "") for each in names if each in measures(analysis)
                }
                tables[name] = _plain(table)
    return tables


def _belongs(variable: xr.DataArray, dims: set[str]) -> bool:
    """Return whether a variable is of a table with these dims; one over steps goes to that of steps and layers."""
    own = set(map(str, variable.dims))
    return own == dims or ("mode" not in dims and own == {"step"})


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns hold one type each: those of mixed types become texts, empty where nothing was."""
    mixed = [name for name in table if table[name].dtype == object]
    texts = {
        name: table[name].map(lambda value: "" if _is_missing(value) else str(value)).astype(str) for name in mixed
    }
    return table.assign(**texts)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _writer_of(table: pd.DataFrame, form: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with write_aside(path) as aside:
            if form == "csv":
                without_formulas(table).to_csv(aside, index=False)
            else:
                table.to_parquet(aside, engine="pyarrow", index=False)

    return write


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts and headings no spreadsheet takes for a formula, because a run may come from anyone.

    Examples
    --------
    >>> without_formulas(pd.DataFrame({"layer": ["=1+1", "fc"], "angle": [-1.5, 2.0]}))["layer"].tolist()
    ["'=1+1", 'fc']
    """
    texts = {
        name: [f"'{each}" if isinstance(each, str) and each.startswith(_FORMULA) else each for each in table[name]]
        for name, kind in table.dtypes.items()
        if kind.kind not in "iufbM"
    }
    return table.assign(**texts).rename(columns=lambda name: f"'{name}" if str(name).startswith(_FORMULA) else name)


def _write_store(path: Path, run: Run, analysis: xr.Dataset | None, metrics: pd.DataFrame) -> None:
    """Write the zarr store, snapshot by snapshot, aside and then in the place of an earlier one."""
    import zarr

    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        root = zarr.open_group(aside, mode="w", zarr_format=2)
        root.attrs["config"] = json.dumps(run.config)
        _write_layers(root, run)
        for name, dataset in (("metrics", None if metrics.empty else _of_lines(metrics)), ("analysis", analysis)):
            if dataset is not None:
                dataset.to_zarr(aside, group=name, mode="w", zarr_format=2, consolidated=False)
        zarr.consolidate_metadata(str(aside), zarr_format=2)
        aside.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_layers(root: Any, run: Run) -> None:
    """Write forward and feedback weights of every layer over the steps; one snapshot is in memory at a time."""
    steps = run.steps
    arrays: dict[str, dict[str, Any]] = {}
    for index, step in enumerate(steps.tolist()):
        with open_snapshot(snapshot_path(run.path, step)) as file:
            names = layer_names(file)
            if arrays and set(names) != arrays.keys():
                raise InputError(f"{file.filename}: has other layers than the first snapshot")
            for name in names:
                layer = read_layer(file, name)
                feedback = layer.forward if layer.feedback is None else layer.feedback
                sides = {"forward": (layer.forward, layer.dims), "feedback": (feedback, layer.feedback_dims)}
                if name not in arrays:
                    arrays[name] = _make(root.create_group(f"layers/{encode_layer(name)}"), sides, steps, layer.kind)
                for side, (values, _) in sides.items():
                    if arrays[name][side].shape[1:] != values.shape:
                        raise InputError(f"{file.filename}: layer {name!r} has another shape than before")
                    arrays[name][side][index] = values


def _make(group: Any, sides: Mapping[str, Any], steps: Any, kind: str) -> dict[str, Any]:
    """Make the arrays of a layer, as xarray reads them."""
    group.attrs["kind"] = kind
    made = {}  # without a fill value, which xarray would read as missing
    for side, (values, dims) in sides.items():
        shape = (len(steps), *values.shape)
        made[side] = group.create_array(
            side, shape=shape, chunks=(1, *values.shape), dtype=values.dtype, fill_value=None
        )
        made[side].attrs["_ARRAY_DIMENSIONS"] = ["step", *dims]
    step = group.create_array("step", shape=steps.shape, dtype=steps.dtype, fill_value=None)
    step[:] = steps
    step.attrs["_ARRAY_DIMENSIONS"] = ["step"]
    return made


def _of_lines(metrics: pd.DataFrame) -> xr.Dataset:
    """Return the metrics as variables over the lines of the file."""
    table = _plain(metrics)
    return xr.Dataset({str(name): ("line", table[name].to_numpy()) for name in table})
