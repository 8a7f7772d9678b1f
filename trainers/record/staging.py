"""Copies of a model's tensors, made in milliseconds, so that training continues while a copy is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.netcdf import Array
from wtdiag.probes.records.schema import LayerArrays, Snapshot
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.place import in_forward_order
from wtdiag.trainers.layers.synaptic import Synaptic
from wtdiag.trainers.observe.tensors import is_recordable, to_numpy
from wtdiag.trainers.rules.direct import Direct

_ALIGN = 64
_EMPTY = -1
_ATTRIBUTES = ("stride", "padding", "dilation", "output_padding", "padding_mode")


class Staging:
    """One copy of a model in a buffer that is allocated once, and pinned if the model is on a GPU.

    `fill` belongs to the training thread and `snapshot` to the writer's; neither changes the model.

    Examples
    --------
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> model = transport_free(nn.Sequential(nn.Linear(3, 2)), "fa")
    >>> staging = Staging()
    >>> staging.fill(7, model)
    >>> _ = model[0].weight.data.zero_()
    >>> snapshot = staging.snapshot()
    >>> snapshot.step, list(snapshot.layers), list(snapshot.state), bool(snapshot.layers["0"].forward.any())
    (7, ['0'], ['0.bias'], True)
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self.step = _EMPTY
        self._reader = reader or converted
        self._buffer = torch.empty(0, dtype=torch.uint8, device="cpu")  # the default device may be another one
        self._layers: dict[str, StagedLayer] = {}
        self._copies: dict[str, Tensor] = {}
        self._layout: dict[str, tuple[torch.dtype, torch.Size]] = {}
        self._signals: Mapping[str, Mapping[str, Array]] = {}
        self._copied: list[torch.cuda.Event] = []

    @property
    def empty(self) -> bool:
        """Whether it holds no copy."""
        return self.step == _EMPTY

    def reserve(self, model: nn.Module) -> None:
        """Allocate the memory for a copy of ``model`` before the first copy."""
        self._allocate(self._reader(model)[1])

    def fill(self, step: int, model: nn.Module, signals: Mapping[str, Mapping[str, Array]] | None = None) -> None:
        """Copy every tensor of ``model``, as it is at ``step``, and keep the signals of its layers if they are given.

        Raises
        ------
        InputError
            If a tensor has no size before the first batch.
        """
        self._layers, tensors = self._reader(model)
        self._signals = signals or {}
        self._allocate(tensors)
        self.step = _EMPTY  # until the copy is whole
        torch._foreach_copy_(list(self._copies.values()), list(tensors.values()), non_blocking=True)
        devices = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
        self._copied = [torch.cuda.current_stream(device).record_event() for device in devices]
        self.step = step

    def snapshot(self) -> Snapshot:
        """Return the copy as arrays, which are views of the buffer: the next `fill` overwrites them."""
        for event in self._copied:
            event.synchronize()
        rest = dict(self._copies)
        layers = {}
        for name, layer in self._layers.items():
            weight, feedback = rest.pop(layer.forward), rest.pop(layer.feedback, None)
            if feedback is not None:  # the layer will do the same before it uses B again
                layer.tie(weight, feedback)
                feedback = feedback if layer.expand is None else layer.expand(feedback)
            forward, dtype = to_numpy(weight)
            backward = None if feedback is None else to_numpy(feedback)[0]
            signals = self._signals.get(name, {})
            layers[name] = LayerArrays(forward, backward, dtype=dtype, signals=signals, **layer.facts)
        arrays = {key: to_numpy(tensor) for key, tensor in rest.items()}
        return Snapshot(
            step=self.step,
            layers=layers,
            state={key: array for key, (array, _) in arrays.items()},
            dtypes={key: dtype for key, (_, dtype) in arrays.items() if dtype},
        )

    def _allocate(self, tensors: dict[str, Tensor]) -> None:
        """Lay out the buffer for ``tensors``, unless it is laid out for the like of them already."""
        layout = {key: (tensor.dtype, tensor.shape) for key, tensor in tensors.items()}
        if list(layout.items()) == list(self._layout.items()):  # the order tells which copy is of which tensor
            return
        size = sum(map(_aligned, tensors.values()))
        if size > self._buffer.numel():
            pinned = any(tensor.is_cuda for tensor in tensors.values())
            # The memory is written to once, so that the system provides it now and not during the first copy.
            self._buffer = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned).zero_()
        self._copies, self._layout, offset = {}, layout, 0
        for key, tensor in tensors.items():
            place = self._buffer[offset : offset + tensor.nbytes]
            self._copies[key] = place.view(tensor.dtype).view(tensor.shape)
            offset += _aligned(tensor)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's own module inside DataParallel, DistributedDataParallel and torch.compile.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> unwrap(nn.DataParallel(model)) is model and unwrap(torch.compile(model)) is model
    True
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def snapshot_bytes(model: nn.Module) -> int:
    """Return an upper bound of the size of one snapshot of ``model`` on the disk, in bytes.

    Raises
    ------
    InputError
        If a tensor has no size before the first batch.
    """
    tensors = converted(unwrap(model))[1].values()
    # Names, dimensions and attributes take less than these constants, and 16-bit floats are stored as float32.
    return 16384 + sum((2 if tensor.dtype.itemsize == 2 else 1) * tensor.nbytes + 4096 for tensor in tensors)


def is_finite(model: nn.Module) -> bool:
    """Return whether all values of every parameter of ``model``, feedback weights included, are finite."""
    parameters = [p.detach() for p in model.parameters() if is_recordable(p) and p.is_floating_point() and p.numel()]
    # Minimum and maximum keep NaN and infinity and cannot overflow. They take a sixth of isfinite().all()'s time.
    ends = [end for parameter in parameters for end in torch.aminmax(parameter)]
    return bool(torch.hstack([end.to(ends[0].device) for end in ends]).isfinite().all()) if ends else True


def unrecorded(model: nn.Module) -> list[str]:
    """Return the state_dict keys of ``model`` whose entries a snapshot does not hold."""
    return [plain_name(key) for key, entry in model.state_dict().items() if not is_recordable(entry)]


@dataclass(frozen=True)
class StagedLayer:
    """A layer among copies of tensors: the keys of its W and B, and the other fields of `LayerArrays`.

    Attributes
    ----------
    forward, feedback : str
        Keys of the tensors; there is none for ``feedback`` if W itself carries the error.
    facts : dict
        The other fields of `LayerArrays`.
    tie : callable
        Function of the copies of W and B that changes that of B to the matrix that will carry the error.
    expand : callable or None
        Function from the copy of what a layer keeps to the whole of its B.
    """

    forward: str
    feedback: str
    facts: dict[str, Any]
    tie: Callable[[Tensor, Tensor], object] = lambda weight, feedback: None
    expand: Callable[[Tensor], Tensor] | None = None


Reader = Callable[[nn.Module], tuple[dict[str, StagedLayer], dict[str, Tensor]]]
"""Function that returns the layers of a model in forward order, and all tensors to copy, by their keys."""


def converted(model: nn.Module) -> tuple[dict[str, StagedLayer], dict[str, Tensor]]:
    """Return the layers of a network from transport_free, and its tensors.

    Raises
    ------
    InputError
        If it has no converted layer, or a tensor has no size before the first batch.
    """
    ordered = in_forward_order(synapses(model))
    if not ordered:
        raise InputError(f"{type(model).__name__}: has no converted layer; expected layers from transport_free")
    last = ordered[-1][1]
    layers = {}
    for index, (name, layer) in enumerate(ordered):
        forward, feedback = (
            layer.state_key("" if layer is model else plain_name(name), part) for part in ("weight", "feedback")
        )
        facts = _facts(index, layer, is_last=layer is last)
        layers[plain_name(name)] = StagedLayer(forward, feedback, facts, layer.rule.tie)
    return layers, _tensors(model, {plain_name(name): layer for name, layer in ordered}, layers)


def _facts(index: int, layer: Synaptic, is_last: bool) -> dict[str, Any]:
    rule = layer.rule
    comparable = not isinstance(rule, Direct) or (is_last and layer.feedback.shape == layer.current("weight").shape)
    attrs = {name: getattr(layer, name) for name in _ATTRIBUTES if hasattr(layer, name)}
    layout, kind = (layer.op.channels_first, layer.op.transposed), layer.kind
    if layout != ("Conv" in kind, kind.startswith("ConvTranspose")):  # what files of these kinds are read as
        attrs |= dict(zip(("channels_first", "transposed"), map(int, layout), strict=True))
    return {
        "kind": layer.kind,
        "index": index,
        "fixed": not (rule.learned or rule.transports or rule.tied),
        "carries_error": layer.carries_error,
        "direct": not comparable,
        "groups": getattr(layer, "groups", 1),
        "attrs": attrs,
    }


def _tensors(model: nn.Module, modules: Mapping[str, Synaptic], layers: Mapping[str, StagedLayer]) -> dict[str, Tensor]:
    """Return W and B of every layer and everything else in the state_dict that is recordable, under plain keys.

    W and B come from the layer itself, because if they are pruned or parametrized the state_dict holds the tensors from
    which they are computed. Under backprop B is W and not returned.
    """
    tensors = {plain_name(key): entry for key, entry in model.state_dict().items() if is_recordable(entry)}
    for name, layer in layers.items():
        module = modules[name]
        tensors[layer.forward] = module.current("weight")
        if module.rule.transports:
            tensors.pop(layer.feedback, None)
        elif is_lazy(module.feedback):
            raise InputError(
                f"{name}: its feedback has no size before the first batch; run one, or use transport_free(..., sample=)"
            )
        else:
            tensors[layer.feedback] = module.current("feedback")
    check_sizes(tensors)
    return tensors


def check_sizes(tensors: Mapping[str, Tensor]) -> None:
    """Require that each tensor has a size and values.

    Raises
    ------
    InputError
        If one has not.
    """
    for key, tensor in tensors.items():
        if is_lazy(tensor):
            raise InputError(f"{key}: has no size before the first batch; run one before recording")
        if tensor.is_meta:
            raise InputError(f"{key}: has no values on the meta device; load the network before recording")


def plain_name(name: str) -> str:
    """Return the name that a module or tensor has in the model before any part of it is compiled."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGN) * _ALIGN
