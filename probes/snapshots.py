"""One snapshot: the weights of every layer and the rest of the model's state, in one netCDF-4 file.

Written with h5py alone, which costs little more than writing the bytes; ``ncdump`` and
``xarray.open_datatree`` read the files with named dimensions. Imported through `probes.schema`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from urllib.parse import unquote

import h5py

from probes.errors import InputError
from probes.files import write_aside
from probes.netcdf import Array, Attribute, Group, create, plain, read_variable

FORMAT = 1
STATE = "_state"  # the reserved group: what is neither a forward nor a feedback weight

_SPACE = ("d", "h", "w")


@dataclass(frozen=True)
class LayerArrays:
    """Forward and feedback weights of one layer at one step.

    Attributes
    ----------
    forward : ndarray
        W: (out, in) for Linear, (out, in / groups, [kd,] [kh,] kw) for ConvNd, (in, out / groups, ...) for
        ConvTransposeNd.
    feedback : ndarray or None
        The weights that carried the error, in W's shape; None where W itself did. With ``direct``, the
        (class, in[, d][, h][, w]) weights that carried the output error to the layer's input.
    kind : str
        Class name of the layer, such as ``"Conv2d"``.
    index : int
        Position in forward order.
    fixed : bool
        Whether the feedback never changes.
    carries_error : bool
        False for a first layer, whose feedback sends the error to nothing.
    direct : bool
        Whether ``feedback`` comes straight from the output (dfa, drtp) and so has other dims than W. The last
        layer's feedback is an ordinary (out, in) one: not direct.
    groups : int
        Of a grouped convolution.
    attrs : mapping
        Other facts, such as ``stride``.
    dtype : str
        Name of the torch dtype where numpy has none and the arrays are a lossless float32 copy, else "".
    """

    forward: Array
    feedback: Array | None
    kind: str
    index: int
    fixed: bool = False
    carries_error: bool = True
    direct: bool = False
    groups: int = 1
    attrs: Mapping[str, Attribute] = field(default_factory=dict)
    dtype: str = ""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dims of ``forward``."""
        ends = ("in", "out") if self.kind.startswith("ConvTranspose") else ("out", "in")
        return (*ends, *(f"k{axis}" for axis in _space(self.forward)))

    @property
    def feedback_dims(self) -> tuple[str, ...]:
        """Names of the dims of ``feedback``; the dims of ``forward`` unless the feedback is direct."""
        if self.feedback is None or not self.direct:
            return self.dims
        # A grouped layer's kernel has fewer inputs than its map.
        agree = self.feedback.shape[1] == dict(zip(self.dims, self.forward.shape, strict=True))["in"]
        return ("class", "in" if agree else "input", *_space(self.feedback))


def _space(array: Array) -> tuple[str, ...]:
    if not 2 <= array.ndim <= 2 + len(_SPACE):
        raise InputError(f"snapshot: a weight has shape {array.shape}; expected 2 to 5 dims")
    return _SPACE[len(_SPACE) + 2 - array.ndim :]


@dataclass(frozen=True)
class Snapshot:
    """Everything that a model is at one step; ``layers`` and ``state`` together rebuild it exactly.

    Attributes
    ----------
    step : int
        Training steps taken.
    layers : mapping of str to LayerArrays
        By the layer's module name; the root module's own name "" is written as "model".
    state : mapping of str to ndarray
        Every other tensor of the ``state_dict`` (biases, batch-norm buffers, ...) by its key.
    dtypes : mapping of str to str
        Torch dtype name of each ``state`` entry that numpy has no dtype for (given as a float32 copy).
    """

    step: int
    layers: Mapping[str, LayerArrays]
    state: Mapping[str, Array] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)


def wtdiag_version() -> str:
    """Version of the installed wtdiag, or "unknown" in a tree that is not installed."""
    try:
        return metadata.version("wtdiag")
    except metadata.PackageNotFoundError:
        return "unknown"


def write_snapshot(path: str | os.PathLike[str], snapshot: Snapshot) -> None:
    """Write ``snapshot`` to ``path``, atomically and with the same bytes every time.

    Raises
    ------
    InputError
        If the disk is full or the folder missing or read-only, or an array has a dtype or rank that
        the format cannot hold.

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
    with write_aside(path) as aside, create(aside) as file:
        root = Group(file.id)
        root.put_attrs({"format": FORMAT, "step": snapshot.step, "wtdiag_version": wtdiag_version()})
        for name, layer in snapshot.layers.items():
            _put_layer(root.child(encode_layer(name)), layer)
        state = root.child(STATE)
        for key, array in snapshot.state.items():
            state.put_anonymous(_encode(key), array, snapshot.dtypes.get(key, ""))


def _put_layer(group: Group, layer: LayerArrays) -> None:
    group.put("forward", layer.forward, layer.dims, layer.dtype)
    if layer.feedback is not None:
        group.put("feedback", layer.feedback, layer.feedback_dims, layer.dtype)
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
def open_snapshot(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Open a snapshot for `layer_names`, `read_layer` and `read_state`.

    Raises
    ------
    InputError
        If the file is missing, truncated, foreign or of a newer format.
    """
    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        with _reading(path):
            found = plain(file.attrs.get("format", "none"))
        if found != FORMAT:
            raise InputError(f"{path}: has snapshot format {found}; expected a wtdiag snapshot of format {FORMAT}")
        yield file


def layer_names(file: h5py.File) -> list[str]:
    """Names of the layers in ``file``, in forward order.

    Raises
    ------
    InputError
        If the file lacks what a snapshot has.
    """
    with _reading(file.filename):
        names = [name for name in file if name != STATE]
        return [unquote(name) for name in sorted(names, key=lambda name: int(file[name].attrs["index"]))]


def read_layer(file: h5py.File, name: str) -> LayerArrays:
    """Read the layer ``name`` from a snapshot opened with `open_snapshot`.

    Raises
    ------
    InputError
        If the file lacks what a layer has, or holds a pointer to another file.
    """
    group = encode_layer(name)
    with _reading(file.filename):
        attrs = {key: plain(value) for key, value in file[group].attrs.items()}
        shared = bool(attrs.pop("feedback_is_forward"))
        forward, dtype = read_variable(file, f"{group}/forward")
        return LayerArrays(
            forward=forward,
            feedback=None if shared else read_variable(file, f"{group}/feedback")[0],
            kind=str(attrs.pop("kind")),
            index=int(attrs.pop("index")),
            fixed=bool(attrs.pop("fixed")),
            carries_error=bool(attrs.pop("carries_error")),
            direct=bool(attrs.pop("direct")),
            groups=int(attrs.pop("groups")),
            attrs=attrs,
            dtype=dtype,
        )


def read_state(file: h5py.File) -> dict[str, Array]:
    """Read every tensor of the ``_state`` group, by its ``state_dict`` key.

    Raises
    ------
    InputError
        If the file lacks the group, or holds a pointer to another file.
    """
    with _reading(file.filename):
        state = file[STATE]
        # A dimension is a dataset too, and the only kind that is a dimension scale.
        names = [name for name in state if not h5py.h5ds.is_scale(state[name].id)]
        return {unquote(name): read_variable(file, f"{STATE}/{name}")[0] for name in names}


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever h5py raises for a file that is not a whole snapshot into one InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: is not a whole wtdiag snapshot ({reason})") from error


def _encode(name: str) -> str:
    # "=" is in the names of anonymous dims, and so has to be in no other name.
    return name.replace("%", "%25").replace("/", "%2F").replace("=", "%3D")


def encode_layer(name: str) -> str:
    """Give the name of a layer's group: "/", "%" and "=" percent-encoded, "model" for the root module.

    Examples
    --------
    >>> encode_layer("layer1.0.conv1"), encode_layer("a/b"), encode_layer("")
    ('layer1.0.conv1', 'a%2Fb', 'model')
    """
    return {"": "model", STATE: "%5Fstate"}.get(name) or _encode(name)
