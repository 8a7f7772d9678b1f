"""Networks that other code trains, as plain arrays: `record` needs no torch and takes any array that NumPy can read."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wtdiag.probes.errors import InputError, check_one_of, one_line
from wtdiag.probes.records import rundir
from wtdiag.probes.records.arrays import SIGNALS, LayerArrays, Snapshot
from wtdiag.probes.records.entries import checked_config, plain_value, whole
from wtdiag.probes.records.schema import (
    CONFIG,
    encode_layer,
    layer_names,
    open_run,
    open_snapshot,
    read_layer,
    snapshot_path,
    write_snapshot,
)
from wtdiag.probes.version import __version__

LAYOUTS = {"oi": "(out, in, *kernel), as in PyTorch", "io": "(*kernel, in, out), as in JAX and TensorFlow"}
_KINDS = {2: "Linear", 3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}
_LIBRARIES = "numpy", "jax", "tensorflow", "torch"
_RECORD = "record"

Pairs = Mapping[str, tuple[ArrayLike, ArrayLike]]
Signals = Mapping[str, Mapping[str, ArrayLike]]


def record(
    path: str | os.PathLike[str],
    step: int,
    pairs: Pairs,
    *,
    layout: str = "oi",
    signals: Signals | None = None,
    config: Mapping[str, Any] | None = None,
    **metrics: Any,
) -> None:
    r"""Record the weights of a network that any code trains; the first call makes the run directory.

    Parameters
    ----------
    path
        The run directory: a new one at the first call, after that the same one.
    step
        Number of training steps taken; it grows from call to call.
    pairs
        By layer, in forward order, the pair (W, B) of its forward weights and of the feedback weights that carried the
        error, of one shape: arrays of NumPy, JAX, TensorFlow, PyTorch or whatever NumPy can read. Give only the layers
        whose B sends the error on to another layer; as a rule the first layer has none.
    layout
        The order of the axes: "oi", (out, in, \*kernel), as in PyTorch; or "io", (\*kernel, in, out), as in JAX and
        TensorFlow.
    signals
        By layer, arrays on one fixed batch under the names of `probes.records.arrays.SIGNALS`. With ``delta``,
        ``delta_exact`` and ``inputs`` the rest follows for layers with a matrix, and ``wtdiag analyze`` measures the
        angles of the error signals.
    config
        Entries for ``config.json``, read at the first call: ``{"rule": {"name": "fa"}}`` names the rule, and
        ``{"settings": {"seed": 0, ...}}`` holds settings of your own, by which `compare` pairs runs.
    **metrics
        What to log at this step, such as ``loss`` and ``accuracy`` of the batch, or ``test_accuracy``.

    Raises
    ------
    InputError
        If ``path`` holds another run or other files; if ``step`` does not come after the last one; if a pair is not two
        arrays of finite real numbers of one shape, or the layers are not those of the last step.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "mine")
    >>> for step in range(3):
    ...     record(folder, step, {"fc2": (np.eye(3), np.ones((3, 3)))}, loss=0.5**step)
    >>> run = open_run(folder)
    >>> run.steps, run.metrics.loss.tolist(), run.layer("fc2").feedback.dims
    (array([0, 1, 2]), [1.0, 0.5, 0.25], ('step', 'out', 'in'))
    """
    path, step = Path(path), whole("step", step)
    layers = layers_of(pairs, layout, signals)
    values = {name: plain_value(name, value) for name, value in metrics.items()}
    if (path / CONFIG).exists():
        hold = rundir.Hold(path)
        try:
            _check_continues(path, step, layers)
        except BaseException:
            hold.release()
            raise
    else:
        hold = rundir.make(path, describe(_RECORD, config), force=False)
    try:
        if values:
            rundir.append_metrics(path, {"step": step, **values})
        write_snapshot(snapshot_path(path, step), Snapshot(step, layers))
    finally:
        hold.release()


def describe(source: str, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of the config.json of a network that other code trains; ``source`` says how it was read."""
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in _LIBRARIES}
    versions = {name: str(version) for name, version in loaded.items() if version is not None}
    return {
        "wtdiag_version": __version__,
        "versions": {"python": platform.python_version(), **versions},
        "settings": {},
        "network": None,
        **checked_config(config or {}),
        "status": rundir.RECORDED,
        "foreign": source,
    }


def layers_of(pairs: Pairs, layout: str = "oi", signals: Signals | None = None) -> dict[str, LayerArrays]:
    """Return pairs (W, B) as the layers of a snapshot, after a check.

    Raises
    ------
    InputError
        As `record` does.

    Examples
    --------
    >>> layers_of({"fc": (np.ones((4, 2)), np.ones((4, 2)))}, "io")["fc"].forward.shape
    (2, 4)
    >>> layers_of({"fc": (np.ones((4, 2)), np.ones((2, 4)))})
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: fc: W has shape (4, 2) and B (2, 4); expected two arrays of one shape
    """
    check_one_of("layout", layout, LAYOUTS)
    if not isinstance(pairs, Mapping) or not pairs:
        raise InputError(f"pairs: expected a mapping of layers to pairs (W, B), got {_short(pairs)}")
    check_names(pairs)
    given = signals or {}
    for name in given:
        check_one_of("signals: layer", name, pairs)
    return {
        name: _layer(name, index, pair, layout, given.get(name, {})) for index, (name, pair) in enumerate(pairs.items())
    }


def check_names(names: Any) -> None:
    """Require names of layers that stay different in a file.

    Raises
    ------
    InputError
        If one is not a text, is empty, or two have the same name in a file.
    """
    taken: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise InputError(f"pairs: expected names of layers, got {_short(name)}")
        first = taken.setdefault(encode_layer(name), name)
        if first is not name:
            raise InputError(f"pairs: {name!r} is the name of two layers; expected different names")


def weights(name: str, what: str, value: Any) -> tuple[NDArray[Any], str]:
    """Return a weight as an array, and the name of its dtype if NumPy lacks it; real numbers, all of them finite.

    Raises
    ------
    InputError
        If it is not such an array.
    """
    array, dtype = as_array(f"{name}: {what}", value)
    if not 2 <= array.ndim <= max(_KINDS) or not array.size:
        raise InputError(f"{name}: {what} has shape {array.shape}; expected 2 to 5 axes, none of them empty")
    return array, dtype


def as_array(named: str, value: Any, *, finite: bool = True) -> tuple[NDArray[Any], str]:
    """Return a copy as an array of real numbers, and the name of its dtype if NumPy lacks it.

    Raises
    ------
    InputError
        If it cannot be read as one.
    """
    if value is None:
        raise InputError(f"{named} is missing; expected an array")
    try:
        if hasattr(value, "detach"):  # a tensor of PyTorch, which is never imported here
            value = value.detach().cpu()
            value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
        array = np.asarray(value).copy()
    except Exception as error:  # whatever the conversion of a foreign object raises
        raise InputError(f"{named} cannot be read as an array ({one_line(error):.120})") from None
    dtype = ""
    if array.dtype.name == "bfloat16":  # that of ml_dtypes, which JAX uses
        array, dtype = array.astype(np.float32), "bfloat16"
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise InputError(f"{named} holds {array.dtype}; expected real numbers of at most 64 bits")
    if finite and not np.isfinite(array).all():
        at = tuple(int(each) for each in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{named} is {array[at]} at {at}; expected finite numbers")
    return array, dtype


def _layer(name: str, index: int, pair: Any, layout: str, signals: Mapping[str, Any]) -> LayerArrays:
    match pair:
        case (forward, feedback):
            pass
        case _:
            raise InputError(f"{name}: expected a pair (W, B) of arrays, got {_short(pair)}")
    if forward is not None and feedback is None:
        raise InputError(f"{name}: has no B; expected a pair (W, B), or (W, W) where W itself carried the error")
    w, dtype = weights(name, "W", forward)
    b, _ = weights(name, "B", feedback)
    if w.shape != b.shape:
        raise InputError(f"{name}: W has shape {w.shape} and B {b.shape}; expected two arrays of one shape")
    if layout == "io":
        w, b = (np.ascontiguousarray(np.moveaxis(each, (-1, -2), (0, 1))) for each in (w, b))
    given = checked_signals(name, signals)
    check_fit(name, given, w.shape)
    return LayerArrays(
        w,
        None if feedback is forward else b,
        kind=_KINDS[w.ndim],
        index=index,
        dtype=dtype,
        signals=given,
    )


def checked_signals(name: str, signals: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the signals of a layer as arrays, after a check.

    Raises
    ------
    InputError
        If a name is not in `SIGNALS`, an array is not of real numbers, or two that are compared have different
        shapes.
    """
    if not isinstance(signals, Mapping):
        raise InputError(f"{name}: signals: expected a mapping of names to arrays, got {_short(signals)}")
    for each in signals:
        check_one_of(f"{name}: signal", each, SIGNALS)
    # Those of a run that diverges are not finite, and its weights are recorded all the same.
    arrays = {each: as_array(f"{name}: signal {each}", value, finite=False)[0] for each, value in signals.items()}
    for group in (("delta", "delta_exact"), ("sent", "sent_local", "sent_exact")):
        for one, other in pairwise(each for each in group if each in arrays):
            if arrays[one].shape != arrays[other].shape:
                raise InputError(
                    f"{name}: signal {one} has shape {arrays[one].shape} and {other} {arrays[other].shape}; expected "
                    "one shape"
                )
    return arrays


def check_fit(name: str, signals: Mapping[str, NDArray[Any]], shape: Sequence[int]) -> None:
    """Require that the inputs and errors of a layer fit its W and count the same examples, if W is a matrix.

    Raises
    ------
    InputError
        If they do not.
    """
    if len(shape) != 2:
        return
    ends = dict.fromkeys(("delta", "delta_exact"), (shape[0], "outputs")) | {"inputs": (shape[1], "inputs")}
    examples: dict[str, tuple[int, ...]] = {}
    for each, (size, end) in ends.items():
        if each not in signals:
            continue
        array = signals[each]
        if array.ndim < 2 or array.shape[-1] != size:
            raise InputError(
                f"{name}: signal {each} has shape {array.shape}; expected (examples, {size}), as W has {size} {end}"
            )
        examples[each] = array.shape[:-1]
    if len(set(examples.values())) > 1:
        said = " and ".join(f"{each} {signals[each].shape}" for each in examples)
        raise InputError(f"{name}: signals {said} count different examples; expected the same")


def _check_continues(path: Path, step: int, layers: Mapping[str, LayerArrays]) -> None:
    """Require that the run in ``path`` was made by `record`, and that the step is its next one."""
    run = open_run(path)
    if run.config.get("foreign") != _RECORD:
        raise InputError(f"{path}: holds a run that was not made by wtdiag.record; choose another path")
    if not len(steps := run.steps):
        return
    last = int(steps[-1])
    if step <= last:
        raise InputError(
            f"step: {step} does not come after {last}, the last one in {path}; expected a larger step, or another path "
            "for a new run"
        )
    with open_snapshot(snapshot_path(path, last)) as file:
        before = {name: read_layer(file, name).forward.shape for name in layer_names(file)}
    if list(before) != list(layers):
        raise InputError(
            f"pairs: the layers are {', '.join(layers)}; expected those of step {last}, {', '.join(before)}"
        )
    for name, shape in before.items():
        if layers[name].forward.shape != shape:
            raise InputError(f"{name}: W has shape {layers[name].forward.shape}; expected {shape}, as at step {last}")


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"one array of shape {tuple(shape)}"
    return " ".join(repr(value).split())[:60]
