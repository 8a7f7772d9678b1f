"""The run directory: the names of its files, and how they are read. `probes.records.rundir` makes and extends it.

``runs/<name>/`` holds ``config.json`` (all that is needed to repeat the run, and its status), ``metrics.jsonl`` (one
JSON object per logged step), ``snapshots/step-00000100.nc``, ``checkpoint.pt``, ``probe_batch.nc``, and later
``analysis.nc``, ``findings.json``, ``report.html`` and ``report.pdf``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError, check_one_of, check_path
from wtdiag.probes.records.arrays import LayerArrays, Snapshot
from wtdiag.probes.records.card import card
from wtdiag.probes.records.config import as_typed, rule_name
from wtdiag.probes.records.files import json_lines, read_json, write_aside, write_json
from wtdiag.probes.records.snapshots import (
    FORMAT,
    NAMED_INPUT,
    SNAPSHOT_NAME,
    STATE,
    encode_layer,
    layer_names,
    open_snapshot,
    read_facts,
    read_layer,
    read_probe_batch,
    read_signals,
    read_state,
    write_snapshot,
)

__all__ = [
    "ANALYSIS", "CHECKPOINT", "CONFIG", "FINDINGS", "FORMAT", "METRICS", "NAMED_INPUT", "PROBE_BATCH", "SNAPSHOTS",
    "STATE", "LayerArrays", "Run", "Snapshot", "encode_layer", "layer_names", "open_run", "open_snapshot",
    "read_facts", "read_json", "read_layer", "read_probe_batch", "read_signals", "read_state",
    "read_written", "snapshot_path",
    "write_aside", "write_json", "write_snapshot",
]  # fmt: skip

T = TypeVar("T")
CONFIG = "config.json"
METRICS = "metrics.jsonl"
SNAPSHOTS = "snapshots"
CHECKPOINT = "checkpoint.pt"
PROBE_BATCH = "probe_batch.nc"
ANALYSIS = "analysis.nc"
FINDINGS = "findings.json"
_SHOWN = ("model", "depth", "width", "data", "epochs", "batch_size", "optimizer", "lr", "seed")  # in a notebook
_ROWS = 2**13  # lines of metrics that are parsed at a time
_CELLS = 2**22  # largest size of the table of metrics, unless the file has more bytes than that


def snapshot_path(run: str | os.PathLike[str], step: int) -> Path:
    """Return the path of the snapshot of ``step`` in the run directory ``run``.

    Examples
    --------
    >>> snapshot_path("runs/x", 100).as_posix()
    'runs/x/snapshots/step-00000100.nc'
    """
    return Path(run, SNAPSHOTS, f"step-{step:08d}.nc")


def snapshots_of(run: str | os.PathLike[str]) -> Path:
    """Return the folder of the snapshots of the run directory ``run``.

    Raises
    ------
    InputError
        If it is a link, which could lead to any folder that the reader may read.
    """
    path = Path(run, SNAPSHOTS)
    if path.is_symlink():
        raise InputError(f"{path}: is a link; expected a folder")
    return path


@dataclass(frozen=True)
class Run:
    """A run directory, opened with `open_run`; everything except ``config`` is read when it is asked for.

    Attributes
    ----------
    path : Path
        The directory.
    config : dict
        Content of ``config.json``.
    """

    path: Path
    config: dict[str, Any]

    def _repr_html_(self) -> str:
        steps, rule, settings = self.steps, self.config.get("rule"), self.config.get("settings")
        given = settings if isinstance(settings, dict) else {}
        parts = rule.items() if isinstance(rule, dict) else ()
        coefficients = [
            f"{name}={as_typed(value)}" for name, value in parts if name != "name" and not isinstance(value, dict)
        ]
        there = [name for name in (ANALYSIS, FINDINGS, "report.html", "report.pdf") if (self.path / name).exists()]
        rows = [
            ("rule", " ".join([rule_name(self.config), *coefficients])),
            (
                "settings",
                ", ".join(f"{name} {as_typed(given[name])}" for name in _SHOWN if given.get(name) is not None),
            ),
            ("snapshots", f"{len(steps)}, steps {steps[0]} to {steps[-1]}" if len(steps) else "none"),
            ("written", ", ".join(there)),
        ]
        return card(str(self.path), str(self.config.get("status", "unknown")), rows)

    @property
    def steps(self) -> NDArray[np.int64]:
        """Steps that have a snapshot, ascending.

        Raises
        ------
        InputError
            If the step in a snapshot's name does not fit in 64 bits.
        """
        names = os.listdir(snapshots_of(self.path)) if (self.path / SNAPSHOTS).is_dir() else []
        steps = sorted(int(match[1]) for match in map(SNAPSHOT_NAME.fullmatch, names) if match)
        try:
            return np.array(steps, dtype=np.int64)
        except OverflowError:
            raise InputError(f"{snapshot_path(self.path, steps[-1])}: expected a step below 2^63") from None

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """``metrics.jsonl`` as a table: one row per line, NaN where a line lacks the key.

        An incomplete last line, which a killed run may leave, is skipped.

        Raises
        ------
        InputError
            If the file is missing or a line is not a JSON object.
        """
        path = self.path / METRICS
        columns: dict[str, list[NDArray[Any]]] = {}
        rows, lines = 0, json_lines(path)
        while chunk := list(islice(lines, _ROWS)):
            names = {name for row in chunk for name in row} | columns.keys()
            if len(names) * (rows + len(chunk)) > max(_CELLS, path.stat().st_size):
                raise InputError(
                    f"{path}: has {len(names)} names in {rows + len(chunk)} lines; expected the same few in every line"
                )
            part = pd.DataFrame.from_records(chunk)
            for name in names:
                earlier = columns.setdefault(name, [np.full(rows, np.nan)] if rows else [])
                missing = name not in part or part[name].isna().all()
                earlier.append(np.full(len(chunk), np.nan) if missing else part[name].to_numpy())
            rows += len(chunk)
        return pd.DataFrame({name: _joined(parts) for name, parts in columns.items()})

    def snapshot(self, step: int) -> xr.DataTree:
        """Return forward and feedback weights at ``step``, one node per layer in forward order.

        The order is that of the newest snapshot, because it is not known before the first batch. A node has the name of
        the layer's group in the file (`probes.records.snapshots.encode_layer`). Under backprop ``feedback`` is
        ``forward``.

        Raises
        ------
        InputError
            If there is no such step, if its file or the newest one is damaged, or if the two have different layers.
        """
        path = self._existing(step)
        with open_snapshot(self._existing(self.steps[-1])) as newest:
            order = layer_names(newest)
        with open_snapshot(path) as file:
            if set(layer_names(file)) != set(order):
                raise InputError(f"{file.filename}: has other layers than the last snapshot")
            layers = {name: replace(read_layer(file, name), index=index) for index, name in enumerate(order)}
        nodes = {encode_layer(name): _label(layer, layer.forward, layer.feedback) for name, layer in layers.items()}
        return xr.DataTree.from_dict(nodes | {"/": xr.Dataset(attrs={"step": step})})

    def layer(self, name: str) -> xr.Dataset:
        """Return the history of one layer: ``forward`` and ``feedback`` over the dims (step, ...).

        Raises
        ------
        InputError
            If there is no such layer, or if a snapshot is damaged or has another shape than the first.
        """
        steps = self.steps
        history = []
        for step in steps:
            with open_snapshot(self._existing(step)) as file:
                check_one_of("layer", name, layer_names(file))
                history.append(read_layer(file, name))
        if not history:
            raise InputError(f"{self.path}: holds no snapshots; expected some in {SNAPSHOTS}/")
        try:
            forward = np.stack([layer.forward for layer in history])
            feedback = [layer.feedback for layer in history if layer.feedback is not None]
            stacked = np.stack(feedback) if len(feedback) == len(history) else None
            # The newest has the attributes: before the first batch the layer's place is not known, nor whether it sends
            # the error down.
            return _label(history[-1], forward, stacked).assign_coords(step=steps)
        except ValueError as error:
            raise InputError(f"{self.path}: layer {name!r} changes its shape between snapshots") from error

    def state(self, step: int) -> dict[str, NDArray[Any]]:
        """Return every tensor of the model at ``step`` that is not a layer's weight, by its ``state_dict`` key.

        Raises
        ------
        InputError
            If there is no such step, or its file is damaged.
        """
        with open_snapshot(self._existing(step)) as file:
            return read_state(file)

    def _existing(self, step: int) -> Path:
        try:
            whole = bool(int(step) == step)
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise InputError(f"step: expected a whole number, got {step!r:.80}")
        path = snapshots_of(self.path) / snapshot_path("", int(step)).name
        if not path.exists():
            near = ", ".join(map(str, self.steps[:20])) or "none"
            raise InputError(f"{path}: there is no snapshot of step {step}; steps: {near}")
        return path


def open_run(path: str | os.PathLike[str] | Run) -> Run:
    """Open a run directory; a run that is open already is returned as it is.

    Raises
    ------
    InputError
        If ``path`` is not a directory with a readable ``config.json``.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_json(folder / CONFIG, {"status": "finished", "rule": {"name": "fa"}})
    >>> (folder / SNAPSHOTS).mkdir()
    >>> layer = LayerArrays(np.eye(2), np.eye(2), kind="Linear", index=0)
    >>> for step in (0, 100):
    ...     write_snapshot(snapshot_path(folder, step), Snapshot(step, {"fc": layer}))
    >>> run = open_run(folder)
    >>> run.steps, dict(run.layer("fc").sizes)
    (array([  0, 100]), {'step': 2, 'out': 2, 'in': 2})
    """
    if isinstance(path, Run):
        return path
    check_path("run", path)
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: is not a directory; expected a run directory with {CONFIG}")
    return Run(path, read_json(path / CONFIG))


def read_written(read: Callable[[Path], T], path: Path, command: str = "analyze") -> T:
    """Read a file that a command of wtdiag wrote; if it is damaged, the error says how to write it again.

    Raises
    ------
    InputError
        As ``read`` does.
    """
    try:
        return read(path)
    except InputError as error:
        if f"wtdiag {command}" in str(error):
            raise
        raise InputError(f"{error}; `wtdiag {command} {path.parent}` writes it again") from error


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Join the parts of a column; where numbers meet truth values or texts, all become objects, as in pandas."""
    kinds = {part.dtype.kind in "iuf" for part in parts if part.size}
    return np.concatenate(parts if len(kinds) < 2 else [part.astype(object) for part in parts])


def _label(layer: LayerArrays, forward: NDArray[Any], feedback: NDArray[Any] | None) -> xr.Dataset:
    """Return the weights with named dims; arrays with one axis more than the layer's have the steps first."""
    lead = ("step",) * (forward.ndim - layer.forward.ndim)
    variables = {
        "forward": ((*lead, *layer.dims), forward),
        "feedback": ((*lead, *layer.feedback_dims), forward if feedback is None else feedback),
    }
    names = ("kind", "index", "fixed", "carries_error", "direct", "groups")
    return xr.Dataset(variables, attrs={**layer.attrs, **{name: getattr(layer, name) for name in names}})
