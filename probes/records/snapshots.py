"""One snapshot: the weights of every layer and the rest of the model's state, in one netCDF-4 file.

The files are written with h5py alone, which costs little more than writing the bytes. ``ncdump`` and
``xarray.open_datatree`` read them with named dimensions. Import this module through `probes.records.schema`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np

from wtdiag.probes.errors import InputError, one_line
from wtdiag.probes.records.arrays import SIGNALS, LayerArrays, Snapshot
from wtdiag.probes.records.files import write_through
from wtdiag.probes.records.netcdf import Array, Attribute, File, Form, Group, create, plain, read_attrs, read_variable
from wtdiag.probes.version import __version__

FORMAT = 1
SNAPSHOT_NAME = re.compile(r"step-(0\d{7}|[1-9]\d{7,})\.nc", re.ASCII)  # exactly the names that `snapshot_path` gives
NAMED_INPUT = "inputs."  # begins the names of a probe batch's inputs, where the network takes several
_SIGNALS = "signals"  # the group in that of a layer
STATE = "_state"  # the reserved group, for tensors that are neither forward nor feedback weights


def write_snapshot(path: str | os.PathLike[str], snapshot: Snapshot, form: Form | None = None) -> None:
    """Write ``snapshot`` to ``path`` atomically; the same snapshot gives the same bytes.

    Parameters
    ----------
    path
        The file to write.
    snapshot
        What it is to hold.
    form
        The form of the last snapshot of a run, which makes that of the next of the same network faster to write.

    Raises
    ------
    InputError
        If the disk is full, if the folder is missing or read-only, or if an array has a dtype that the format cannot
        hold.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> path = tempfile.mkdtemp() + "/step-00000000.nc"
    >>> layer = LayerArrays(np.ones((2, 3)), np.zeros((2, 3)), kind="Linear", index=0)
    >>> write_snapshot(path, Snapshot(step=0, layers={"fc": layer}, state={"fc.bias": np.zeros(2)}))
    >>> with open_snapshot(path) as file:
    ...     layer_names(file), read_layer(file, "fc").dims, read_state(file)
    (['fc'], ('out', 'in'), {'fc.bias': array([0., 0.])})
    """
    with write_through(path, keep=True) as stream:
        key = "" if form is None else _form_of(snapshot)
        if form is not None and form.fits(key):
            form.fill(stream, _arrays(snapshot), "step", snapshot.step)
            return
        with create(stream) as file:
            root = Group(file.id, stream)
            root.put_attrs({"format": FORMAT, "step": snapshot.step, "wtdiag_version": __version__})
            for name, layer in snapshot.layers.items():
                _put_layer(root.child(encode_layer(name)), layer)
            state = root.child(STATE)
            for name, array in snapshot.state.items():
                state.put_anonymous(_encode(name), array, snapshot.dtypes.get(name, ""))
        if form is not None:
            form.take(key, stream)


def _arrays(snapshot: Snapshot) -> list[tuple[Array, str]]:
    """Return all arrays of a snapshot with the names of their dtypes, in the order in which they are put."""
    pairs: list[tuple[Array | None, str]] = []
    for layer in snapshot.layers.values():
        pairs += [(layer.forward, layer.dtype), (layer.feedback, layer.dtype)]
        pairs += [(array, "") for array in layer.signals.values()]
    pairs += [(array, snapshot.dtypes.get(name, "")) for name, array in snapshot.state.items()]
    return [(array, dtype) for array, dtype in pairs if array is not None]


def _form_of(snapshot: Snapshot) -> str:
    """Return everything that determines the file of a snapshot except its step and the values of its arrays."""
    kinds = [(array.dtype.str, array.shape, dtype) for array, dtype in _arrays(snapshot)]
    layers = [
        [
            (field.name, list(value) if field.name == "signals" else value)
            for field in dataclasses.fields(layer)
            if not isinstance(value := getattr(layer, field.name), np.ndarray)
        ]
        for layer in snapshot.layers.values()
    ]
    return repr((list(snapshot.layers), layers, list(snapshot.state), kinds))


def _put_layer(group: Group, layer: LayerArrays) -> None:
    group.put("forward", layer.forward, layer.dims, layer.dtype)
    if layer.feedback is not None:
        group.put("feedback", layer.feedback, layer.feedback_dims, layer.dtype)
    if layer.signals:
        signals = group.child(_SIGNALS)
        for name, array in layer.signals.items():
            signals.put_anonymous(name, array, "")
    own: dict[str, Attribute] = {
        "kind": layer.kind,
        "index": layer.index,
        "fixed": int(layer.fixed),
        "carries_error": int(layer.carries_error),
        "feedback_is_forward": int(layer.feedback is None),
        "direct": int(layer.direct),
        "groups": layer.groups,
    }
    group.put_attrs({**layer.attrs, **own})


@contextmanager
def open_snapshot(path: str | os.PathLike[str]) -> Iterator[File]:
    """Open a snapshot for `layer_names`, `read_layer` and `read_state`.

    Raises
    ------
    InputError
        If the file is missing or truncated, is not a snapshot, has a newer format, or has another step than its name.
    """
    with _reading(path):
        file = File(path)
    with file:
        with _reading(path):
            attrs = read_attrs(file, file)
            version, step = attrs.get("format", "none"), attrs.get("step", "none")
        if version != FORMAT:
            raise InputError(f"{path}: has snapshot format {version!r:.40}; expected {FORMAT}, the format of wtdiag")
        named = SNAPSHOT_NAME.fullmatch(Path(path).name)
        if named and step != int(named[1]):
            raise InputError(f"{path}: is the snapshot of step {step!r:.40}; expected that of step {int(named[1])}")
        yield file


def layer_names(file: File) -> list[str]:
    """Return the names of the layers in ``file``, in the forward order that was known when it was written.

    Raises
    ------
    InputError
        If the file is not a whole snapshot.
    """
    with _reading(file.filename):
        names = [name for name in file if name != STATE]
        index = {name: int(plain(file.member(name).attrs["index"])) for name in names}
        return [unquote(name) for name in sorted(names, key=index.__getitem__)]


def read_facts(file: File, name: str) -> dict[str, Any]:
    """Read the fields of `LayerArrays` other than arrays for the layer ``name``, and ``shared``: whether B is W.

    Raises
    ------
    InputError
        If there is no such layer, or it is not whole.
    """
    with _reading(file.filename, f"layer {name!r}: "):
        attrs = read_attrs(file, file.member(encode_layer(name)))
        return {
            "shared": bool(attrs.pop("feedback_is_forward")),
            "kind": str(attrs.pop("kind")),
            "index": int(attrs.pop("index")),
            "fixed": bool(attrs.pop("fixed")),
            "carries_error": bool(attrs.pop("carries_error")),
            "direct": bool(attrs.pop("direct")),
            "groups": int(attrs.pop("groups")),
            "attrs": attrs,
        }


def read_layer(file: File, name: str) -> LayerArrays:
    """Read the layer ``name`` from a snapshot opened with `open_snapshot`.

    Raises
    ------
    InputError
        If there is no such layer, if it is not whole, or if it points to another file.
    """
    facts = read_facts(file, name)
    shared = facts.pop("shared")
    with _reading(file.filename, f"layer {name!r}: "):
        group = encode_layer(name)
        forward, dtype = read_variable(file, f"{group}/forward")
        feedback = None if shared else read_variable(file, f"{group}/feedback")[0]
        return LayerArrays(forward, feedback, dtype=dtype, **facts)


def read_signals(file: File, name: str) -> dict[str, Array]:
    """Read the signals of the layer ``name`` that the snapshot holds, by the names in `probes.records.arrays.SIGNALS`.

    Raises
    ------
    InputError
        If there is no such layer, or it is not whole.
    """
    with _reading(file.filename, f"layer {name!r}: "):
        group = encode_layer(name)
        if _SIGNALS not in file.member(group):
            return {}
        inside = file.member(f"{group}/{_SIGNALS}")
        return {each: read_variable(file, f"{group}/{_SIGNALS}/{each}")[0] for each in SIGNALS if each in inside}


def read_state(file: File) -> dict[str, Array]:
    """Read every tensor of the ``_state`` group, by its ``state_dict`` key.

    Raises
    ------
    InputError
        If the file lacks the group, or points to another file.
    """
    with _reading(file.filename):
        names = [name for name in file.member(STATE) if not _is_dimension(file.member(f"{STATE}/{name}"))]
        return {unquote(name): read_variable(file, f"{STATE}/{name}")[0] for name in names}


def read_probe_batch(
    path: str | os.PathLike[str],
) -> tuple[tuple[Array, str] | dict[str, tuple[Array, str]], tuple[Array, str]]:
    """Read the fixed batch of the signal probes: inputs (batch, ...), one or by name, and targets (batch, ...).

    Each comes with the name of its torch dtype if NumPy has no such dtype and the array is a lossless copy in another,
    else with "".

    Raises
    ------
    InputError
        If the file does not hold both, with the same number of examples, at least one.
    """
    with _reading(path, kind="probe batch"), File(path) as file:
        names = [name for name in file if name.startswith(NAMED_INPUT)]
        inputs = {name: read_variable(file, name) for name in names or ["inputs"]}
        targets = read_variable(file, "targets")
        for array, _ in inputs.values():
            if not (array.ndim and array.size) or array.shape[:1] != targets[0].shape[:1]:
                raise InputError(
                    f"inputs {array.shape}, targets {targets[0].shape}; expected the same number of examples, at least "
                    "one"
                )
        named = {name.removeprefix(NAMED_INPUT): inputs[name] for name in names}
        return named or inputs["inputs"], targets


def _is_dimension(member: Any) -> bool:
    """Return whether a dataset is a dimension: only dimensions are dimension scales."""
    return isinstance(member, h5py.Dataset) and h5py.h5ds.is_scale(member.id)


@contextmanager
def _reading(path: str | os.PathLike[str], part: str = "", kind: str = "snapshot") -> Iterator[None]:
    """Turn any error that a damaged file causes into an InputError that names the file."""
    try:
        yield
    except Exception as error:  # whatever HDF5, h5py and numpy raise for a damaged file
        raise InputError(f"{path}: is not a whole wtdiag {kind} ({part}{one_line(error, path):.300})") from error


def _encode(name: str) -> str:
    # "=" marks the names of anonymous dims, so no other name may contain it.
    return name.replace("%", "%25").replace("/", "%2F").replace("=", "%3D")


def encode_layer(name: str) -> str:
    """Return the name of a layer's group: "/", "%" and "=" are percent-encoded, and the root module is "model".

    Examples
    --------
    >>> encode_layer("layer1.0.conv1"), encode_layer("a/b"), encode_layer("")
    ('layer1.0.conv1', 'a%2Fb', 'model')
    """
    return {"": "model", STATE: "%5Fstate"}.get(name) or _encode(name)
