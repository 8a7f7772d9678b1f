"""Analysis of a run directory: one labelled dataset of everything that the probes measure.

Here the values of probes receive their dims, coordinates, units and chance levels. `diagnostics.analysis.derive` labels
the measures that follow from them, and `diagnostics.analysis.reading` completes analyses of earlier versions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.attributing import Attribution, NewestCosts
from wtdiag.diagnostics.analysis.cluster import cluster
from wtdiag.diagnostics.analysis.costs import COSTS
from wtdiag.diagnostics.analysis.derive import derive
from wtdiag.diagnostics.analysis.freed_memory import freed_memory_kept
from wtdiag.diagnostics.analysis.layout import NULLS
from wtdiag.diagnostics.analysis.origins import Context, attrs, origins, unchanged
from wtdiag.diagnostics.analysis.reading import complete
from wtdiag.diagnostics.analysis.survey import Row, Signals, Survey, Values
from wtdiag.probes import GIVEN, PROBES, Probe
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.netcdf import read_dataset, write_dataset
from wtdiag.probes.records.schema import Run, layer_names, open_snapshot, read_facts, snapshot_path

Progress = Callable[[Sequence[int]], Iterable[int]]

_WEIGHTS = frozenset({"forward", "feedback"})
_FACTS = frozenset({"groups", "direct", "units", "transposed"})  # what a snapshot tells of each layer
_FAST = frozenset({"weights", "signals", "step_size_number"})  # rooms of probes, and a probe
_NORMS = "forward_norm", "feedback_norm"  # not finite if a weight is not


def analyze(
    run: Run,
    probes: Iterable[str] | None = None,
    signals: Signals | None = None,
    attribution: Attribution | None = None,
    progress: Progress | None = None,
    scheduler: str | None = None,
    fixed: Callable[[str], bool] = lambda layer: False,
    also: Iterable[str] = (),
    fast: bool = False,
    context: Context | None = None,
    earlier: xr.Dataset | None = None,
    given: Collection[str] | None = None,
) -> xr.Dataset:
    """Measure every layer of every snapshot of a run.

    Snapshots are read one after the other, so memory does not grow with their number. The layers of a snapshot are
    measured in parallel.

    Parameters
    ----------
    run
        As `probes.records.schema.open_run` returns it.
    probes
        Names from `probes.PROBES`, of which only these are measured. By default all probes but the slow ones are
        measured, or without ``signals`` those that need only weights; the attribution follows, and then the measures
        that `diagnostics.analysis.derive` derives from them.
    signals
        Function that returns for a step, by layer, what the parameters of probes name besides the weights. A layer may
        lack some of it.
    attribution
        Function that returns for a step, by layer, what the feedback costs. It is called for the last of the snapshots
        whose weights are finite, because it takes many passes over the batch.
    progress
        Wrapper of the steps that shows progress, such as `rich.progress.track`.
    scheduler
        Address of a dask cluster, such as ``tcp://host:8786``, that does the same work, one snapshot at a time; by
        default threads do it. The workers read the run directory themselves, so they need the same file system;
        ``signals`` and ``attribution`` are pickled for them.
    fixed
        Function that says of a layer whether its feedback does not learn, if the snapshots do not say so themselves.
    also
        Names of probes that are measured besides those of the default.
    fast
        Whether to measure only weights, signals and the step-size number, without spectra, fixed points and the
        attribution.
    context
        Function that returns for a step what signals depend on besides the snapshot and the probe batch; None if that
        cannot be told, and the step is then measured in any case. It goes with ``signals``.
    earlier
        An earlier analysis of the run. Its values are used for the snapshots of which it measured all that is asked
        for, and from the same (see `diagnostics.analysis.origins`).
    given
        Names of what ``signals`` returns. Default: all that a probe can need.

    Returns
    -------
    Dataset
        The dims are (step, layer, mode), with layers in forward order, and NaN where a layer has no value or fewer
        modes. Each probe is a variable whose attributes describe it (`probes.Measure`). If it has a chance level,
        ``<probe>_null`` and ``<probe>_null_sd`` are the mean and the standard deviation by chance. If signals failed,
        the attribute ``failures`` says why, as JSON by step.

    Raises
    ------
    InputError
        If the run has no snapshots, a snapshot is incomplete or has other layers than the rest, a probe is not known or
        needs signals that are missing or fail at every step, or the cluster cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> from wtdiag.probes.records.schema import LayerArrays, Snapshot, write_snapshot
    >>> run = Run(Path(tempfile.mkdtemp()), {"status": "finished"})
    >>> (run.path / "snapshots").mkdir()
    >>> layer = LayerArrays(np.eye(2), np.ones((2, 2)), kind="Linear", index=0)
    >>> write_snapshot(snapshot_path(run.path, 0), Snapshot(0, {"fc": layer}))
    >>> analyze(run, probes=["weight_angle"]).weight_angle.sel(step=0, layer="fc").item()
    45.0...
    """
    names = None if probes is None else tuple(probes)
    available = frozenset(GIVEN if given is None else given) if signals is not None else frozenset[str]()
    chosen = _choose(names, tuple(also), available | _WEIGHTS | _FACTS, fast=fast)
    steps = [int(step) for step in run.steps]
    if not steps:
        raise InputError(f"{run.path}: holds no snapshots; expected at least one")
    # From the newest snapshot, because the order of layers, and which carry error, are known only after a first batch.
    layers = _facts(snapshot_path(run.path, steps[-1]))
    used = None if all(probe.needs <= _WEIGHTS for probe in chosen) else signals
    survey = Survey(run.path.resolve(), tuple(probe.name for probe in chosen), tuple(layers), used)
    measured = [probe.name for probe in chosen]
    attributed = names is None and not fast and attribution is not None
    of_costs = [*COSTS] if attributed else []
    sources = origins(run, steps, chosen, context if signals is not None else None)
    with freed_memory_kept(), cluster(scheduler) if scheduler is not None else nullcontext(map) as each:
        kept = _earlier_rows(earlier, unchanged(earlier, [*measured, *of_costs], sources), chosen, layers)
        due = [step for step in steps if step not in kept]
        shown = progress(due) if progress else due
        rows, costs = dict(kept), NewestCosts(attribution if attributed else None, each, steps, earlier, kept)
        costs.look(rows)
        # On a cluster the newest first: a worker can then attribute its costs while others measure the rest.
        order = due if scheduler is None else due[::-1]
        for _, step, row in zip(shown, order, each(survey, order), strict=False):
            rows[step] = row
            costs.look(rows)
        failed = [step for step in steps if rows[step].failure]
        analysis = _dataset(run, chosen, steps, layers, [rows[step] for step in steps], fixed)
        analysis = analysis.assign_attrs(attrs([*measured, *of_costs], sources, failed))
        if names is not None:
            return analysis
        if attributed:
            analysis = analysis.assign(_attributed(costs.found(), steps, layers))
    return derive(analysis)


def write_analysis(analysis: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write an analysis to a netCDF-4 file, atomically.

    Raises
    ------
    InputError
        If ``path`` cannot be written.
    """
    write_dataset(path, analysis)


def read_analysis(path: str | os.PathLike[str], only: Collection[str] = ()) -> xr.Dataset:
    """Read the analysis that `write_analysis` wrote; the file may come from anyone.

    If names of measures are given, only these are read, with what is known of the layers, and former names and
    descriptions stay as they are in the file.

    Raises
    ------
    InputError
        If there is no such file, or it does not hold numbers over step and layer.
    """
    if not (path := Path(path)).exists():
        raise InputError(f"{path}: there is no analysis; expected one, as `wtdiag analyze {path.parent}` writes it")
    analysis = read_dataset(path, "an analysis file", [*only, "step", "layer", "carries_error"] if only else ())
    for dim in ("step", "layer"):
        if not analysis.sizes.get(dim) or dim not in analysis.coords:
            raise InputError(f"{path}: has no coordinate {dim!r} with values; expected dims step and layer")
    steps = analysis["step"].values
    whole = steps.dtype.kind in "iu" and 0 <= int(steps.min()) <= int(steps.max()) < 2**63
    if not whole or (np.diff(steps.astype(np.int64)) <= 0).any():
        raise InputError(f"{path}: step holds {steps.dtype}; expected whole numbers that ascend from 0 or more")
    for coordinate in {"layer", "kind"} & set(analysis.coords):
        values = analysis[coordinate].values
        if not all(isinstance(value, str) for value in values.ravel()):
            raise InputError(f"{path}: {coordinate} holds {values.dtype}; expected texts")
    for name, measure in analysis.data_vars.items():
        if not set(measure.dims) <= {"step", "layer", "mode"} or measure.dtype.kind not in "fiu":
            content = f"{measure.dtype} over ({', '.join(map(str, measure.dims))})"
            raise InputError(f"{path}: {name} holds {content}; expected numbers over step, layer and mode")
        if not str(name).endswith(NULLS) and "step" not in measure.dims:
            raise InputError(f"{path}: {name} lacks the dim step")
    return analysis if only else complete(analysis)


def _choose(names: Sequence[str] | None, also: Sequence[str], given: Collection[str], *, fast: bool) -> list[Probe]:
    asked = also if names is None else names
    for name in asked:
        check_one_of("probe", name, PROBES)
        if missing := sorted(PROBES[name].needs.difference(given)):
            raise InputError(
                f"probe: {name!r} needs {', '.join(missing)}, from the network and a probe batch; "
                "the run lacks a batch, or its network is not known"
            )
    usual: list[str] = []
    if names is None:
        possible = [probe for probe in PROBES.values() if not probe.slow and probe.needs.issubset(given)]
        usual = [probe.name for probe in possible if not fast or probe.room in _FAST or probe.name in _FAST]
    return [PROBES[name] for name in dict.fromkeys([*usual, *asked])]


def _earlier_rows(
    earlier: xr.Dataset | None, steps: Iterable[int], chosen: Sequence[Probe], layers: Iterable[str]
) -> dict[int, Row]:
    """Return the measures of snapshots from an earlier analysis, by step: those whose weights are finite."""
    if earlier is None or earlier["layer"].values.tolist() != list(layers):
        return {}
    names = [probe.name + end for probe in chosen for end in ("", *(NULLS if probe.null else ()))]
    rows = {}
    for step in steps:
        now = {name: earlier[name].sel(step=step).transpose("layer", ...).values for name in names}
        if not np.isfinite([now[name] for name in _NORMS if name in now]).all():
            continue
        values = [{name: _trimmed(of[layer]) for name, of in now.items()} for layer in range(earlier.sizes["layer"])]
        rows[step] = Row(values, finite=True, failure="")
    return rows


def _trimmed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the modes of a layer without those that only other layers have."""
    return values[: int(np.max(np.flatnonzero(~np.isnan(values)), initial=-1)) + 1] if values.ndim else values


def _facts(path: Path) -> dict[str, dict[str, Any]]:
    """Read the facts of each layer from a snapshot, in forward order."""
    with open_snapshot(path) as file:
        return {name: read_facts(file, name) for name in layer_names(file)}


def _dataset(
    run: Run,
    chosen: Sequence[Probe],
    steps: Sequence[int],
    layers: Mapping[str, Mapping[str, Any]],
    rows: list[Row],
    fixed: Callable[[str], bool],
) -> xr.Dataset:
    failures = {step: row.failure for step, row in zip(steps, rows, strict=True) if row.failure}
    if len(failures) == len(steps):
        raise InputError(failures[steps[0]])
    table = [row.values for row in rows]
    variables = {}
    modes = max((np.size(value) for row in table for values in row for value in values.values()), default=0)
    for probe in chosen:
        name = probe.name
        variables[name] = _variable(table, name, probe.dims, modes, probe.attrs)
        if probe.null is not None:
            for suffix, what in (("_null", "mean by chance"), ("_null_sd", "standard deviation by chance")):
                about = {"units": probe.units, "long_name": f"{probe.long_name}: {what}"}
                variables[name + suffix] = _variable(table, name + suffix, probe.dims, modes, about)
    still = [fact["fixed"] or fact["shared"] or fixed(layer) for layer, fact in layers.items()]
    coordinates: dict[str, Any] = {
        "step": ("step", np.array(steps), {"long_name": "training step"}),
        "layer": ("layer", np.array(list(layers), dtype=object)),
        "kind": ("layer", np.array([fact["kind"] for fact in layers.values()], dtype=object)),
        "carries_error": ("layer", np.array([fact["carries_error"] for fact in layers.values()])),
        "direct": ("layer", np.array([fact["direct"] for fact in layers.values()])),
        "fixed": ("layer", np.array(still)),
    }
    rule = run.config.get("rule")
    rule = rule if isinstance(rule, dict) else {}
    about = {
        "run": run.path.resolve().name,
        "rule": str(rule.get("name", "unknown")),
        "rule_coefficients": json.dumps({key: value for key, value in rule.items() if key != "name"}),
        "status": str(run.config.get("status", "unknown")),
        "settings": json.dumps(run.config.get("settings", {})),
    }
    if failures:
        about["failures"] = json.dumps(failures)
    return xr.Dataset(variables, coordinates, about)


def _attributed(
    costs: Mapping[int, Mapping[str, tuple[float, ...]]], steps: Sequence[int], layers: Iterable[str]
) -> dict[str, xr.Variable]:
    """Return the variables of the attribution, with NaN at the steps where it was not measured."""
    table = [[dict(zip(COSTS, costs.get(step, {}).get(layer, ()), strict=False)) for layer in layers] for step in steps]
    return {name: _variable(table, name, (), 0, each.attrs) for name, each in COSTS.items()}


def _variable(
    table: Sequence[Sequence[Values]], name: str, dims: tuple[str, ...], modes: int, attrs: Mapping[str, Any]
) -> xr.Variable:
    """Return one measure over (step, layer, ...), with NaN where a layer has no value or fewer modes."""
    data = np.full((len(table), len(table[0]), *(modes for _ in dims)), np.nan)
    for i, row in enumerate(table):
        for j, values in enumerate(row):
            if name in values:
                data[(i, j, slice(np.size(values[name])))[: data.ndim]] = values[name]
    return xr.Variable(("step", "layer", *dims), data, attrs)
