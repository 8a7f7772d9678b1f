"""Weights that another program exported over training, in one ``.npz`` or ``.mat`` file, as a run directory.

For each layer the file holds ``<layer>_forward`` (step, out, in[, ...]) and ``<layer>_feedback``, of the same shape or
without the axis of steps if it never changed. ``step`` (step,) numbers the training steps and is 0, 1, 2, ... where it
is missing. Every other array has one number for each step and is a metric, such as ``loss`` or ``test_accuracy``.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError, one_line
from wtdiag.probes.records import rundir
from wtdiag.probes.records.entries import plain_value
from wtdiag.probes.records.files import open_regular
from wtdiag.probes.records.foreign import as_array, check_names, describe, layers_of
from wtdiag.probes.records.schema import CONFIG, Snapshot, snapshot_path, write_json, write_snapshot

_SIDES = "forward", "feedback"
_SPREAD, _LEAST = 32, 2**28  # a file may take this many times its size in memory, or this many bytes if that is more


def import_run(
    file: Path, out: Path, *, layout: str = "oi", config: Mapping[str, Any] | None = None, force: bool = False
) -> None:
    """Make a run directory of an exported file.

    Parameters
    ----------
    file
        A ``.npz`` file of NumPy, or a ``.mat`` file of MATLAB up to version 7 (``save -v7``).
    out
        The run directory to make.
    layout
        The order of the axes, as for `probes.records.foreign.record`.
    config
        Entries for ``config.json``.
    force
        Whether to replace the run that ``out`` holds.

    Raises
    ------
    InputError
        If the file cannot be read, holds objects or a name twice, or its arrays do not fit together; nothing is
        written then.
    """
    arrays = _read(file)
    steps, sides, metrics = _sorted_out(arrays, str(file))

    def pairs(index: int) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        return {
            name: (forward[index], feedback[index] if feedback.ndim == forward.ndim else feedback)
            for name, (forward, feedback) in sides.items()
        }

    try:
        for index in range(len(steps)):
            layers_of(pairs(index), layout)  # all of them, before the first is written
    except InputError as error:
        raise InputError(f"{file}: step {steps[index]}: {error}") from None
    made = {**describe("import", config), "status": "running"}
    hold = rundir.make(out, made, force=force)
    try:
        for index, step in enumerate(steps):
            if metrics:
                line = {name: plain_value(name, values[index]) for name, values in metrics.items()}
                rundir.append_metrics(out, {"step": step, **line})
            write_snapshot(snapshot_path(out, step), Snapshot(step, layers_of(pairs(index), layout)))
        write_json(out / CONFIG, made | {"status": "finished"})
    finally:
        hold.release()


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a file; objects are never unpickled, and what it takes in memory is limited."""
    try:
        with open_regular(path, follow=True) as file:
            start = file.read(4)
            file.seek(0)
            return _read_npz(file, path) if start.startswith(b"PK") else _read_mat(file, path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None
    except Exception as error:  # whatever zipfile, NumPy and SciPy raise for a damaged file
        raise InputError(f"{path}: cannot be read as .npz or .mat ({one_line(error):.200})") from None


def _read_npz(file: Any, path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if twice := [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]:
            raise InputError(f"{path}: holds {twice[0].removesuffix('.npy')!r} twice; expected different names")
        size, most = sum(entry.file_size for entry in entries), max(_SPREAD * path.stat().st_size, _LEAST)
        if size > most:
            raise InputError(f"{path}: unpacks to {size} bytes; expected at most {most} from a file of its size")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return {name: _member(archive, name, path) for name in archive.files}


def _member(archive: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(f"{path}: {name} holds Python objects; expected an array of numbers") from None
        raise


def _read_mat(file: Any, path: Path) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat, whosmat

    with_types = whosmat(file)
    size, most = sum(8 * int(np.prod(shape)) for _, shape, _ in with_types), max(_SPREAD * path.stat().st_size, _LEAST)
    if size > most:
        raise InputError(f"{path}: unpacks to {size} bytes; expected at most {most} from a file of its size")
    if twice := [name for name, count in Counter(name for name, *_ in with_types).items() if count > 1]:
        raise InputError(f"{path}: holds {twice[0]!r} twice; expected different names")
    for name, _, kind in with_types:
        if kind in ("cell", "struct", "object", "function", "opaque", "char", "sparse"):
            raise InputError(f"{path}: {name} is a {kind} array; expected an array of numbers")
    file.seek(0)
    content = loadmat(file)
    return {name: np.asarray(content[name]) for name, *_ in with_types}


def _sorted_out(
    arrays: Mapping[str, NDArray[Any]], source: str
) -> tuple[list[int], dict[str, tuple[NDArray[Any], NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Return the steps, the two sides of each layer, and the metrics."""
    names = dict.fromkeys(
        name.removesuffix(f"_{side}") for name in arrays for side in _SIDES if name.endswith(f"_{side}")
    )
    if not names:
        raise InputError(f"{source}: holds {', '.join(arrays) or 'nothing'}; expected <layer>_forward and _feedback")
    check_names(names)
    sides: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
    for name in names:
        missing = [side for side in _SIDES if f"{name}_{side}" not in arrays]
        if missing:
            raise InputError(f"{source}: {name} has no {missing[0]} weights; expected {name}_{missing[0]} in the file")
        forward, feedback = (as_array(f"{source}: {name}_{side}", arrays[f"{name}_{side}"])[0] for side in _SIDES)
        sides[name] = forward, feedback
    rest = {name: each.ravel() for name, each in arrays.items() if not name.endswith(tuple(f"_{s}" for s in _SIDES))}
    steps = rest.pop("step", None)
    if steps is None:
        steps = np.arange(len(next(iter(sides.values()))[0]))
    if steps.dtype.kind not in "iuf" or not len(steps) or (steps != np.floor(steps)).any() or steps.min() < 0:
        raise InputError(f"{source}: step holds {steps.dtype} {steps[:4].tolist()}; expected whole numbers from 0")
    if (np.diff(steps.astype(np.float64)) <= 0).any():
        at = int(np.flatnonzero(np.diff(steps.astype(np.float64)) <= 0)[0])
        raise InputError(f"{source}: step goes back from {steps[at]:g} to {steps[at + 1]:g}; expected ascending steps")
    for name, (forward, feedback) in sides.items():
        if forward.ndim < 3 or len(forward) != len(steps) or feedback.shape not in (forward.shape, forward.shape[1:]):
            raise InputError(
                f"{source}: {name} has forward weights {forward.shape} and feedback weights {feedback.shape}; expected "
                f"({len(steps)}, out, in), the first axis for the steps, which feedback that never changes may lack"
            )
    for name, values in rest.items():
        if len(values) != len(steps) or values.dtype.kind not in "iufb":
            raise InputError(
                f"{source}: {name} has shape {arrays[name].shape} of {values.dtype}; expected one number for each of "
                f"{len(steps)} steps"
            )
    return [int(step) for step in steps], sides, rest
