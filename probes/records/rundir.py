"""Making, extending and rewinding a run directory. See also `probes.records.schema`."""

from __future__ import annotations

import errno
import fcntl
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import xarray as xr
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError, check_path
from wtdiag.probes.records.files import json_line, open_regular, parse_json, write_json
from wtdiag.probes.records.netcdf import write_dataset
from wtdiag.probes.records.schema import (
    ANALYSIS,
    CHECKPOINT,
    CONFIG,
    FINDINGS,
    METRICS,
    NAMED_INPUT,
    PROBE_BATCH,
    SNAPSHOTS,
    open_run,
    snapshot_path,
    snapshots_of,
)

ENDED = ("finished", "diverged", "pruned")
"""Statuses of a run that cannot be resumed, because nothing is left to do."""
RECORDED = "recorded"
"""Status of a run whose steps are recorded one by one, by code that does not say when it ends."""
_INPUT_DIMS = {2: ["feature"], 3: ["channel", "w"], 4: ["channel", "h", "w"], 5: ["channel", "d", "h", "w"]}
_REPLACED = (METRICS, PROBE_BATCH, ANALYSIS, FINDINGS, "report.html", "report.pdf")


def make(path: Path, config: dict[str, Any], *, force: bool) -> Hold:
    """Make a run directory, with ``force`` in place of the run that it holds. Files that are not a run's are kept.

    If the process is killed at any instant, the directory holds nothing, the old run, or the new one: the old
    checkpoint is removed first, and nothing else is removed before the new config has replaced the old one.

    Returns
    -------
    Hold
        The hold on the directory, which keeps other processes from recording in it.

    Raises
    ------
    InputError
        If ``path`` holds a run and ``force`` is not given, if it holds other files, or if it cannot be made.
    """
    check_path("out", path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        held = Hold(path)
        try:
            _check_content(path, force)
            (path / CHECKPOINT).unlink(missing_ok=True)
            write_json(path / CONFIG, config)
            for file in [*path.glob(f"{SNAPSHOTS}/step-*.nc"), *_torn(path), *(path / name for name in _REPLACED)]:
                file.unlink(missing_ok=True)
            (path / SNAPSHOTS).mkdir(exist_ok=True)
            (path / METRICS).touch()
        except BaseException:
            held.release()
            raise
    except OSError as error:
        raise InputError(f"{path}: a run directory cannot be made there ({error.strerror})") from error
    return held


def check(path: Path, *, force: bool) -> None:
    """Require what `make` requires, without changing anything.

    Raises
    ------
    InputError
        As `make` does.
    """
    check_path("out", path)
    try:
        nearest = next((place for place in (path, *path.parents) if place.exists()), path)
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path.is_dir():
            Hold(path).release()
            _check_content(path, force)
    except OSError as error:
        raise InputError(f"{path}: a run directory cannot be made there ({error.strerror})") from error


def check_restart(path: Path) -> None:
    """Require that the run in ``path``, which has no checkpoint, loses nothing if it starts again.

    Raises
    ------
    InputError
        If it was not made by the training loop, or has taken a step.
    """
    run, metrics = open_run(path), path / METRICS
    begun = metrics.exists() and metrics.stat().st_size > 0
    if run.config.get("network") is None or begun or (run.steps > 0).any():
        raise InputError(f"resume: {path} has no checkpoint to resume from; expected {CHECKPOINT} in it")


class Hold:
    """A hold on a folder: no other process may record in it until it is released or this process ends or is killed.

    A child that this process forks does not hold the folder: the child has nothing to do with the run.

    Raises
    ------
    InputError
        If another process holds ``path``, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"{path}: cannot be opened ({error.strerror}); expected a directory") from error
        _HELD.add(self)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(
                f"{path}: is being recorded by another process, or by a Recorder that is still open"
            ) from None
        except OSError:
            pass  # the file system has no locks

    def release(self) -> None:
        """Let others record in the folder; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_HELD: weakref.WeakSet[Hold] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for held in list(_HELD):
        held.release()  # the parent keeps its descriptor, and with it the lock


os.register_at_fork(after_in_child=_leave_to_parent)


def append_metrics(path: Path, *lines: dict[str, Any]) -> None:
    """Append lines to the metrics of the run directory ``path``, all of them or none.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    path = path / METRICS
    data = b"".join(map(json_line, lines))
    try:
        with open_regular(path, writable=True) as file:
            size = os.lseek(file.fileno(), 0, os.SEEK_END)
            if os.write(file.fileno(), data) != len(data):
                os.ftruncate(file.fileno(), size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def flush_metrics(path: Path) -> None:
    """Wait until the metrics of the run directory ``path`` are on the disk.

    Raises
    ------
    InputError
        If the file is missing or cannot be flushed.
    """
    try:
        with open_regular(path / METRICS) as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path / METRICS}: cannot be written ({error.strerror})") from error


def probe_dataset(
    inputs: tuple[NDArray[Any], str] | Mapping[str, tuple[NDArray[Any], str]], targets: tuple[NDArray[Any], str]
) -> xr.Dataset:
    """Return the fixed batch of the signal probes, ``inputs`` (batch, ...) and ``targets`` (batch, ...), as a dataset.

    The inputs are one array, or several by the names under which the network takes them. Each comes with the name of
    its torch dtype if NumPy has no such dtype, as `trainers.observe.tensors.to_numpy` returns it.

    Raises
    ------
    InputError
        If they do not hold the same number of examples, at least one.
    """
    given: dict[str, tuple[NDArray[Any], str]]
    if isinstance(inputs, Mapping):
        given = {f"{NAMED_INPUT}{name}": each for name, each in inputs.items()}
    else:
        given = {"inputs": inputs}
    for x, _ in given.values():
        if not x.ndim or x.shape[:1] != targets[0].shape[:1] or not x.size:
            raise InputError(
                "probe_batch: expected inputs and targets with the same number of examples, at least one, "
                f"got shapes {x.shape} and {targets[0].shape}"
            )
    axes = {"inputs": "axis", "targets": "target_axis"}
    variables = {}
    for name, (array, dtype) in (given | {"targets": targets}).items():
        axis = axes.get(name) or f"axis_of_{name.removeprefix(NAMED_INPUT)}_"
        dims = [f"{axis}{place}" for place in range(1, array.ndim)]
        if name == "inputs":
            dims = _INPUT_DIMS.get(array.ndim) or dims
        variables[name] = (("batch", *dims), array, {"torch_dtype": dtype} if dtype else {})
    return xr.Dataset(variables)


def write_probe_batch(path: Path, batch: xr.Dataset) -> None:
    """Write the dataset that `probe_dataset` returned into the run directory ``path``.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    write_dataset(path / PROBE_BATCH, batch)


def rewind(path: Path, step: int) -> dict[str, Any]:
    """Remove everything later than ``step`` or half-written from the run directory ``path``; return its config.

    Raises
    ------
    InputError
        If ``path`` is not a run directory, or a file cannot be changed.
    """
    run = open_run(path)
    try:
        for file in [*_torn(path), *(snapshot_path(path, late) for late in run.steps if late > step)]:
            file.unlink()
        with open_regular(path / METRICS, writable=True) as metrics:
            metrics.truncate(_length_up_to(metrics, step))
    except OSError as error:
        raise InputError(f"{path}: cannot be brought back to step {step} ({error.strerror})") from error
    return run.config


def _check_content(path: Path, force: bool) -> None:
    """Require that ``path`` holds nothing, or a run that may be replaced."""
    # The files that a run may leave if it is killed before it has a config count as nothing.
    leftovers = {snapshots_of(path), path / METRICS, *_torn(path)}
    present = {*path.iterdir(), *path.glob(f"{SNAPSHOTS}/*")}
    if present <= leftovers and not (path / METRICS in present and (path / METRICS).stat().st_size):
        return
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: holds files but no run; choose another path")
    if not force:
        raise InputError(f"{path}: exists already; choose another path or replace it with force")


def _torn(path: Path) -> list[Path]:
    """Return the files that killed writers left: files are written under such names and renamed when whole."""
    return [*path.glob(".*.tmp"), *snapshots_of(path).glob(".*.tmp")]


def _length_up_to(metrics: BinaryIO, step: int) -> int:
    """Return the length in bytes of the whole lines up to ``step``."""
    length = 0
    for line in metrics:
        try:
            late = not line.endswith(b"\n") or parse_json(line)["step"] > step
        except (ValueError, KeyError, TypeError):
            late = True
        if late:
            break
        length += len(line)
    return length
