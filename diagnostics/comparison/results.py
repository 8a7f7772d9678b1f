"""Results of studies, sweeps and transfers: the content of their files, which are checked as they come from anyone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.files import parse_json
from wtdiag.probes.records.netcdf import read_dataset

RESULTS = "results.nc"
"""File name of the results of a study, sweep or transfer."""
DECIDED = "claims.json"
"""File name of the verdicts on a study's claims."""
STUDY = "study.json"
"""File name of the record of what a study does."""
STATUSES = ("finished", "diverged", "pruned", "failed", "interrupted", "pending", "running", "absent")
"""States of a run of a study; "absent" means that no run is planned at that place."""

_MEASURED = ("steps", "seconds")
_TRANSFER = ("rule", "configuration", "architecture", "seed")


@dataclass(frozen=True)
class _Kind:
    """Content of a file of one kind: the required dims, and variables over all dims of ``status``."""

    dims: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    attrs: tuple[str, ...] = ()
    open_dims: bool = False


RESULT_KINDS = {
    "grid": _Kind(
        ("rule", "seed"),
        ("status", "reason", "run"),
        ("test_accuracy", "test_loss", "weight_angle", "error_angle", *_MEASURED),
        open_dims=True,
    ),
    "sweep": _Kind(
        ("rule", "trial"),
        ("status", "reason"),
        ("validation_accuracy", "step_size_number", "log_gain", *_MEASURED),
        ("space", "sampler", "reference"),
    ),
    "transfer": _Kind(
        _TRANSFER, ("status", "reason"), ("test_accuracy", "test_loss", *_MEASURED), ("source", "reference")
    ),
}
"""Kinds of results, by the value of the attribute ``kind``."""

_OPTIONAL = {
    "importance": ("rule", "parameter"),
    "predicted_step_size_number": ("rule", "map_x", "map_y"),
    "predicted_log_gain": ("rule", "map_x", "map_y"),
}


@dataclass(frozen=True)
class StudyResults:
    """All results in the folder of a study.

    Attributes
    ----------
    grid : Dataset or None
        Results of the study's own runs.
    sweeps, transfers : mapping of str to Dataset
        Results of its sweeps and transfers, by folder name.
    """

    grid: xr.Dataset | None = None
    sweeps: Mapping[str, xr.Dataset] = field(default_factory=dict)
    transfers: Mapping[str, xr.Dataset] = field(default_factory=dict)


def read_results(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read the results of a study, a sweep or a transfer, and check that they are valid.

    Parameters
    ----------
    path
        A ``results.nc``; `RESULT_KINDS` lists what each kind holds.

    Returns
    -------
    Dataset
        Texts are objects, numbers keep their type. ``attrs["kind"]`` is one of `RESULT_KINDS`.

    Raises
    ------
    InputError
        If there is no such file, it is incomplete, refers to other files, or lacks a part of its kind.

    Examples
    --------
    >>> read_results("nowhere/results.nc")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: nowhere/results.nc: there are no results; ...
    """
    if not (path := Path(path)).is_file():
        raise InputError(f"{path}: there are no results; expected a file that wtdiag study, sweep or transfer wrote")
    results = read_dataset(path, "a results file")
    try:
        check_results(results)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return results


def gather(folder: str | os.PathLike[str]) -> StudyResults:
    """Read all results in the folder of a study; the folder of a single sweep or transfer is accepted too.

    Raises
    ------
    InputError
        If the folder holds no results, or a file cannot be read.

    Examples
    --------
    >>> gather("nowhere")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: nowhere: holds no results; expected results.nc or sweeps/*/results.nc or ...
    """
    folder = Path(folder)
    by_kind: dict[str, dict[str, xr.Dataset]] = {kind: {} for kind in RESULT_KINDS}
    places = [RESULTS, f"sweeps/*/{RESULTS}", f"transfers/*/{RESULTS}"]
    for path in (path for place in places for path in sorted(folder.glob(place))):
        results = read_results(path)
        by_kind[results.attrs["kind"]][path.parent.resolve().name] = results
    if not any(by_kind.values()):
        raise InputError(f"{folder}: holds no results; expected {' or '.join(places)}")
    return StudyResults(next(iter(by_kind["grid"].values()), None), by_kind["sweep"], by_kind["transfer"])


def check_results(results: xr.Dataset) -> None:
    """Check that a dataset holds everything that its kind requires.

    Raises
    ------
    InputError
        If a part is missing or invalid, with the name of that part.

    Examples
    --------
    >>> check_results(xr.Dataset(attrs={"kind": "table"}))
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: kind: 'table' is not known. Choices: grid, sweep, transfer
    """
    check_one_of("kind", name := str(results.attrs.get("kind")), RESULT_KINDS)
    kind = RESULT_KINDS[name]
    for attr in ("title", "settings", *kind.attrs):
        if not isinstance(results.attrs.get(attr), str):
            raise InputError(f"{attr}: expected an attribute with text, got {results.attrs.get(attr)!r:.60}")
    settings_of(results)
    methods_of(results)
    dims = results["status"].dims if "status" in results else ()
    if not set(kind.dims) <= set(dims) or (len(dims) > len(kind.dims) and not kind.open_dims):
        raise InputError(f"status: expected the dims {', '.join(kind.dims)}, got {', '.join(map(str, dims)) or 'none'}")
    for dim in dims:
        _check_levels(results, str(dim), text=dim in ("rule", "architecture"), whole=dim == "seed")
    for variable in (*kind.texts, *kind.numbers):
        if variable not in results or set(results[variable].dims) != set(dims):
            raise InputError(f"{variable}: expected a variable over {', '.join(map(str, dims))}")
        _check_values(results, variable, text=variable in kind.texts)
    for variable in set(_OPTIONAL) & set(results.data_vars):
        if set(results[variable].dims) != set(_OPTIONAL[variable]):
            raise InputError(f"{variable}: expected a variable over {', '.join(_OPTIONAL[variable])}")
        _check_values(results, variable, text=False)
    if "right" in results:
        if set(results["right"].dims) != {*dims, "example"} or results["right"].dtype.kind != "i":
            raise InputError(f"right: expected whole numbers over {', '.join(map(str, dims))}, example")
        if ((results["right"].values < -1) | (results["right"].values > 1)).any():
            raise InputError("right: expected −1, 0 or 1 for each test example")
    if unknown := set(results["status"].values.ravel().tolist()) - set(STATUSES):
        check_one_of("status", min(unknown), STATUSES)
    for variable in {"test_accuracy", "validation_accuracy"} & set(results.data_vars):
        values = results[variable].values
        if ((values < 0) | (values > 1)).any():
            raise InputError(f"{variable}: expected shares from 0 to 1, got {np.nanmin(values)} to {np.nanmax(values)}")
    if name == "sweep":
        _check_searched(results)
    if name == "transfer":
        check_one_of("source", results.attrs["source"], results["architecture"].values.tolist())


def settings_of(results: xr.Dataset) -> dict[str, Any]:
    """Return the settings that all runs of some results share.

    Raises
    ------
    InputError
        If the attribute ``settings`` is not a JSON object.

    Examples
    --------
    >>> settings_of(xr.Dataset(attrs={"settings": '{"data": "digits"}'}))
    {'data': 'digits'}
    """
    return _object(results, "settings")


def methods_of(results: xr.Dataset) -> dict[str, Any]:
    """Return the settings of each method of some results by its name; none if the results do not hold them.

    Raises
    ------
    InputError
        If the attribute ``methods`` is there, but is not a JSON object.

    Examples
    --------
    >>> methods_of(xr.Dataset(attrs={"methods": '{"soft": {"rule": "fa", "coefficients": {"soft": 0.5}}}'}))
    {'soft': {'rule': 'fa', 'coefficients': {'soft': 0.5}}}
    """
    return _object(results, "methods") if "methods" in results.attrs else {}


def chance(results: xr.Dataset) -> float:
    """Return the accuracy by chance, 1 / classes, NaN if it is not known.

    It is taken from the attribute ``classes``, or else from a run that diverged, which answers at chance.

    Examples
    --------
    >>> chance(xr.Dataset(attrs={"classes": 10}))
    0.1
    """
    classes = results.attrs.get("classes")
    if isinstance(classes, int | np.integer) and classes > 0:
        return float(1 / classes)
    name = "validation_accuracy" if "validation_accuracy" in results else "test_accuracy"
    if name not in results:
        return float("nan")
    by_chance = results[name].values[results["status"].transpose(*results[name].dims).values == "diverged"]
    by_chance = by_chance[np.isfinite(by_chance)]
    return float(by_chance.max()) if len(by_chance) else float("nan")


def _object(results: xr.Dataset, attr: str) -> dict[str, Any]:
    """Return the JSON object in an attribute."""
    try:
        content = parse_json(results.attrs[attr])
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{attr}: expected a JSON object, got {results.attrs[attr]!r:.60}")
    return content


def _check_searched(results: xr.Dataset) -> None:
    """Check that every parameter of the space has its values, and that the map, if any, is over two of them."""
    space = _object(results, "space")
    for name in space:
        if name not in results or set(results[name].dims) != {"rule", "trial"}:
            raise InputError(f"{name}: expected a variable over rule, trial, because it is in the space")
        _check_values(results, name, text=_are_texts(results[name].values))
    if "map" in results.attrs:
        try:
            first, second = parse_json(results.attrs["map"])
        except (ValueError, TypeError):
            first = second = None
        if first == second or not all(isinstance(name, str) and name in space for name in (first, second)):
            raise InputError(f"map: expected two parameters of the space, got {results.attrs['map']!r:.60}")


def _check_levels(results: xr.Dataset, dim: str, *, text: bool, whole: bool) -> None:
    """Check that a dim has a coordinate with distinct levels of the right kind."""
    if dim not in results.coords or not results.sizes[dim]:
        raise InputError(f"{dim}: expected a coordinate with at least one level")
    levels = results[dim].values
    texts = _are_texts(levels)
    if (text and not texts) or (whole and levels.dtype.kind not in "iu") or not (texts or levels.dtype.kind in "biuf"):
        expected = "texts" if text else "whole numbers" if whole else "texts or numbers"
        raise InputError(f"{dim}: expected {expected} as levels, got {levels[0]!r:.60}")
    if len(set(levels.tolist())) < len(levels):
        raise InputError(f"{dim}: holds the same level twice")


def _check_values(results: xr.Dataset, name: str, *, text: bool) -> None:
    values = results[name].values
    if text and not _are_texts(values):
        raise InputError(f"{name}: expected texts, got {values.dtype}")
    if not text and values.dtype.kind not in "iuf":
        raise InputError(f"{name}: expected numbers, got {values.dtype}")


def _are_texts(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "U" or (
        values.dtype.kind == "O" and all(isinstance(value, str) for value in values.ravel())
    )
