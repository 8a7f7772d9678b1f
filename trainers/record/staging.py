"""A model's tensors copied aside in milliseconds, so that it can train on while the copy is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import LayerArrays, Snapshot
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.layers import Synaptic
from wtdiag.trainers.layers.place import in_forward_order
from wtdiag.trainers.observe.tensors import is_recordable, to_numpy
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules.direct import Direct

_ALIGN = 64
_EMPTY = -1
_ATTRIBUTES = ("stride", "padding", "dilation", "output_padding", "padding_mode")


class Staging:
    """One copy of a model in a buffer that is allocated once, and pinned if the model lives on a GPU.

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

    def __init__(self) -> None:
        self.step = _EMPTY
        self._buffer = torch.empty(0, dtype=torch.uint8, device="cpu")  # whatever the default device is
        self._layers: dict[str, _Layer] = {}
        self._copies: dict[str, Tensor] = {}
        self._copied: list[torch.cuda.Event] = []

    @property
    def empty(self) -> bool:
        """Whether no copy is held."""
        return self.step == _EMPTY

    def reserve(self, model: nn.Module) -> None:
        """Allocate what a copy of ``model`` needs, before the first one is asked for."""
        self._allocate(_tensors(model, _layers(model)))

    def fill(self, step: int, model: nn.Module) -> None:
        """Copy every tensor of ``model``, as it is at ``step``.

        Raises
        ------
        InputError
            If a tensor has no size before the first batch.
        """
        self._layers = _layers(model)
        tensors = _tensors(model, self._layers)
        self._allocate(tensors)
        self.step = _EMPTY  # until the copy is whole
        self._copies, offset = {}, 0
        for key, tensor in tensors.items():
            place = self._buffer[offset : offset + tensor.nbytes]
            self._copies[key] = place.view(tensor.dtype).view(tensor.shape)
            self._copies[key].copy_(tensor, non_blocking=tensor.is_cuda)
            offset += _aligned(tensor)
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
            weight, feedback = rest.pop(f"{layer.prefix}weight"), rest.pop(f"{layer.prefix}feedback", None)
            if feedback is not None:  # as the layer will do before it uses B again
                layer.rule.tie(weight, feedback)
            forward, dtype = to_numpy(weight)
            backward = None if feedback is None else to_numpy(feedback)[0]
            layers[name] = LayerArrays(forward, backward, dtype=dtype, **layer.facts)
        arrays = {key: to_numpy(tensor) for key, tensor in rest.items()}
        return Snapshot(
            step=self.step,
            layers=layers,
            state={key: array for key, (array, _) in arrays.items()},
            dtypes={key: dtype for key, (_, dtype) in arrays.items() if dtype},
        )

    def _allocate(self, tensors: dict[str, Tensor]) -> None:
        size = sum(map(_aligned, tensors.values()))
        if size > self._buffer.numel():
            pinned = any(tensor.is_cuda for tensor in tensors.values())
            # Written to once now: so the system finds the memory here and not in the first copy.
            self._buffer = torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned).zero_()


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
    """Return the bytes that one snapshot of ``model`` takes on disk, at most.

    Raises
    ------
    InputError
        If a tensor has no size before the first batch.
    """
    model = unwrap(model)
    tensors = _tensors(model, _layers(model)).values()
    # Names, dimensions and attributes take less than the constants here; float16 is stored as float32.
    return 16384 + sum((2 if tensor.dtype.itemsize == 2 else 1) * tensor.nbytes + 4096 for tensor in tensors)


def is_finite(model: nn.Module) -> bool:
    """Whether every parameter of ``model``, feedback weights included, is finite throughout."""
    parameters = [p.detach() for p in model.parameters() if is_recordable(p) and p.is_floating_point() and p.numel()]
    # Minimum and maximum keep NaN and infinity and cannot overflow: a sixth of the time of isfinite().all().
    ends = [torch.stack(torch.aminmax(parameter)).isfinite().all() for parameter in parameters]
    return bool(torch.stack([flag.to(ends[0].device) for flag in ends]).all()) if ends else True


def unrecorded(model: nn.Module) -> list[str]:
    """Return the state_dict keys of ``model`` whose entries a snapshot leaves out."""
    return [plain_name(key) for key, entry in model.state_dict().items() if not is_recordable(entry)]


@dataclass(frozen=True)
class _Layer:
    """State of a layer other than tensors: where its tensors are, its rule, and the rest of `LayerArrays`."""

    module: str
    prefix: str
    rule: Rule
    facts: dict[str, Any]


def _layers(model: nn.Module) -> dict[str, _Layer]:
    found = in_forward_order(synapses(model))
    if not found:
        raise InputError(f"{type(model).__name__}: has no converted layer; expected one from transport_free")
    last = found[-1][1]
    return {
        plain_name(name): _Layer(
            module=name,
            prefix="" if layer is model else f"{plain_name(name)}.",
            rule=layer.rule,
            facts=_facts(index, layer, is_last=layer is last),
        )
        for index, (name, layer) in enumerate(found)
    }


def _facts(index: int, layer: Synaptic, is_last: bool) -> dict[str, Any]:
    rule = layer.rule
    comparable = not isinstance(rule, Direct) or (is_last and layer.feedback.shape == layer.current("weight").shape)
    attrs = {name: getattr(layer, name) for name in _ATTRIBUTES if hasattr(layer, name)}
    return {
        "kind": layer.kind,
        "index": index,
        "fixed": not (rule.learned or rule.transports or rule.tied),
        "carries_error": layer.carries_error,
        "direct": not comparable,
        "groups": getattr(layer, "groups", 1),
        "attrs": attrs,
    }


def _tensors(model: nn.Module, layers: dict[str, _Layer]) -> dict[str, Tensor]:
    """Return W and B of every layer and all else in the state_dict that is recordable, under plain keys.

    W and B are asked of the layer: where they are pruned or parametrized, the state_dict holds what they are made of.
    Backprop's B is W.
    """
    found = {plain_name(key): entry for key, entry in model.state_dict().items() if is_recordable(entry)}
    modules = dict(synapses(model))
    for name, layer in layers.items():
        module = modules[layer.module]
        found[f"{layer.prefix}weight"] = module.current("weight")
        if layer.rule.transports:
            found.pop(f"{layer.prefix}feedback", None)
        elif is_lazy(module.feedback):
            raise InputError(
                f"{name}: its feedback has no size before the first batch; run one, or use transport_free(..., sample=)"
            )
        else:
            found[f"{layer.prefix}feedback"] = module.current("feedback")
    for key, tensor in found.items():
        if is_lazy(tensor):
            raise InputError(f"{key}: has no size before the first batch; run one before recording")
        if tensor.is_meta:
            raise InputError(f"{key}: has no values, for it lies on the meta device; load the network before recording")
    return found


def plain_name(name: str) -> str:
    """Return the name that a module or tensor has where no part of the model is compiled."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGN) * _ALIGN
