"""From a run directory to one labelled dataset of everything that the probes measure.

Here, and nowhere else, arrays get their dims, coordinates, units and chance levels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from probes import PROBES, Probe, Quantities
from probes.errors import InputError, check_one_of
from probes.schema import Run, layer_names, open_snapshot, read_facts, read_layer, snapshot_path, write_aside
from probes.spectra import Spectrum
from probes.subspaces import MODES

Signals = Callable[[int], Mapping[str, Mapping[str, NDArray[Any]]]]
Progress = Callable[[Sequence[int]], Iterable[int]]

_WEIGHTS = frozenset({"forward", "feedback"})
_Values = dict[str, Any]  # variable name -> number, or one per mode


def analyze(
    run: Run,
    probes: Iterable[str] | None = None,
    signals: Signals | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Measure every layer of every snapshot of a run.

    Snapshots are read one after the other, so memory does not grow with their number; the layers of one
    are measured side by side.

    Parameters
    ----------
    run
        As `probes.schema.open_run` gives it.
    probes
        Names of `probes.PROBES`; by default all but the slow, and without ``signals`` none that needs error signals.
    signals
        Gives for a step, by layer, the error signals that `probes.signals` describes. A layer may lack some.
    progress
        Wraps the steps that are gone through, as `rich.progress.track` does.

    Returns
    -------
    Dataset
        Dims (step, layer, mode), layers in forward order, NaN where a layer has no value or fewer modes. Each
        probe is a variable with ``units``, ``long_name``, ``equation`` and ``reference``; beside it, where it
        has a chance level, ``<probe>_null`` and ``<probe>_null_sd`` are its mean and standard deviation.

    Raises
    ------
    InputError
        If the run has no snapshots or one that is not whole, the layers are not the same in all, a probe is
        not known, or one needs signals and there are none.

    Examples
    --------
    >>> import tempfile
    >>> from probes.schema import LayerArrays, Snapshot, write_snapshot
    >>> run = Run(Path(tempfile.mkdtemp()), {"status": "finished"})
    >>> (run.path / "snapshots").mkdir()
    >>> layer = LayerArrays(np.eye(2), np.ones((2, 2)), kind="Linear", index=0)
    >>> write_snapshot(snapshot_path(run.path, 0), Snapshot(0, {"fc": layer}))
    >>> analyze(run, probes=["weight_angle"]).weight_angle.sel(step=0, layer="fc").item()
    45.0...
    """
    chosen = _choose(probes, with_signals=signals is not None)
    steps = [int(step) for step in run.steps]
    if not steps:
        raise InputError(f"{run.path}: holds no snapshots; expected at least one")
    # The newest snapshot: the layers' order and which of them carry an error are known only after the first batch.
    layers = _facts(snapshot_path(run.path, steps[-1]))
    fixed: dict[str, Spectrum] = {}
    table: list[list[_Values]] = []
    blas = ThreadpoolController()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for step in progress(steps) if progress else steps:
            errors = signals(step) if signals else {}
            # One BLAS thread a layer, and layers side by side: faster than several threads on each in turn.
            with open_snapshot(snapshot_path(run.path, step)) as file, blas.limit(limits=1, user_api="blas"):
                if set(layer_names(file)) != set(layers):
                    raise InputError(f"{file.filename}: has other layers than the last snapshot")
                table.append(list(pool.map(partial(_measure, chosen, file, errors, fixed), layers)))
    return _dataset(run, chosen, steps, layers, table)


def write_analysis(analysis: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write what `analyze` gave to a netCDF-4 file, atomically.

    Raises
    ------
    InputError
        If ``path`` cannot be written.
    """
    with write_aside(path) as aside:
        analysis.to_netcdf(aside, engine="h5netcdf")


def _choose(names: Iterable[str] | None, with_signals: bool) -> list[Probe]:
    if names is None:
        return [probe for probe in PROBES.values() if not probe.slow and (with_signals or probe.needs <= _WEIGHTS)]
    chosen = []
    for name in names:
        check_one_of("probe", name, PROBES)
        if not with_signals and not PROBES[name].needs <= _WEIGHTS:
            raise InputError(f"probe: {name!r} needs the error signals of a probe batch; none are given")
        chosen.append(PROBES[name])
    return chosen


def _facts(path: Path) -> dict[str, tuple[str, bool]]:
    """Kind of each layer and whether its feedback carries an error, in forward order."""
    with open_snapshot(path) as file:
        facts = {name: read_facts(file, name) for name in layer_names(file)}
    return {name: (fact["kind"], fact["carries_error"]) for name, fact in facts.items()}


def _measure(
    chosen: Sequence[Probe],
    file: h5py.File,
    errors: Mapping[str, Mapping[str, NDArray[Any]]],
    fixed: dict[str, Spectrum],
    name: str,
) -> _Values:
    """Measure one layer; a probe that the layer lacks something for is left out."""
    layer = read_layer(file, name)
    feedback = layer.forward if layer.feedback is None else layer.feedback
    given: dict[str, Any] = {"forward": layer.forward, "feedback": feedback, **errors.get(name, {})}
    given |= {"groups": layer.groups, "direct": layer.direct, "units": 1 if "Conv" in layer.kind else -1}
    given |= {"transposed": layer.kind.startswith("ConvTranspose")}
    if any("subspace_pairs" in probe.uses for probe in chosen):
        given["vectors"] = MODES  # with the singular values, not by a decomposition of their own
    if name in fixed:
        given["feedback_spectrum"] = fixed[name]
    quantities = Quantities(**given)
    values: _Values = {}
    for probe in chosen:
        if probe.needs <= given.keys():
            values[probe.name] = quantities[probe.name]
            if (null := quantities.null(probe.name)) is not None:
                values[f"{probe.name}_null"], values[f"{probe.name}_null_sd"] = null
            if layer.fixed and probe.side == "feedback":
                fixed[name] = quantities["feedback_spectrum"]  # half of the work, and the same at every step
    return values


def _dataset(
    run: Run,
    chosen: Sequence[Probe],
    steps: Sequence[int],
    layers: Mapping[str, tuple[str, bool]],
    table: Sequence[Sequence[_Values]],
) -> xr.Dataset:
    variables = {}
    modes = max((np.size(value) for row in table for values in row for value in values.values()), default=0)
    for probe in chosen:
        name, about = probe.name, {"units": probe.units, "long_name": probe.long_name}
        sources = {"equation": probe.equation, "reference": probe.reference}
        variables[name] = _variable(table, name, probe.dims, modes, about | sources)
        if probe.null is not None:
            for suffix, what in (("_null", "mean by chance"), ("_null_sd", "standard deviation by chance")):
                long_name = {"long_name": f"{probe.long_name}: {what}"}
                variables[name + suffix] = _variable(table, name + suffix, probe.dims, modes, about | long_name)
    coordinates = {
        "step": ("step", np.array(steps), {"long_name": "training step"}),
        "layer": ("layer", np.array(list(layers), dtype=object)),
        "kind": ("layer", np.array([kind for kind, _ in layers.values()], dtype=object)),
        "carries_error": ("layer", np.array([carries for _, carries in layers.values()])),
    }
    rule = run.config.get("rule")
    rule = rule if isinstance(rule, dict) else {}
    attrs = {
        "run": run.path.resolve().name,
        "rule": str(rule.get("name", "unknown")),
        "rule_coefficients": json.dumps({key: value for key, value in rule.items() if key != "name"}),
        "status": str(run.config.get("status", "unknown")),
        "settings": json.dumps(run.config.get("settings", {})),
    }
    return xr.Dataset(variables, coordinates, attrs)


def _variable(
    table: Sequence[Sequence[_Values]], name: str, dims: tuple[str, ...], modes: int, attrs: Mapping[str, str]
) -> xr.Variable:
    """Lay one measure out over (step, layer, ...), NaN where a layer has none or fewer modes."""
    data = np.full((len(table), len(table[0]), *(modes for _ in dims)), np.nan)
    for i, row in enumerate(table):
        for j, values in enumerate(row):
            if name in values:
                data[(i, j, slice(np.size(values[name])))[: data.ndim]] = values[name]
    return xr.Variable(("step", "layer", *dims), data, attrs)
