"""The registry of layer types: what conversion turns each of them into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.operations import Operation
from wtdiag.trainers.layers.synaptic import Converted, Synaptic

_C = TypeVar("_C", bound=type)
_CONVERSIONS: dict[type | str, type] = {}
"""By native type or its dotted name: a mixin of converted modules, a whole class of them, or an operation."""
_CLASSES: dict[type, type[Converted]] = {}
"""The class into which each native type is converted, once it has been asked for."""


def converts(*natives: type[nn.Module] | str) -> Callable[[_C], _C]:
    """Declare into what layers of some types are converted; a class decorator.

    For a layer type of your own, decorate a class of operations derived from `Operation`. Its ``apply`` says how the
    layer's ``weight`` and ``bias`` act on an input, and may read other attributes of ``self.layer``; without it, the
    layer's own ``forward`` is taken. The error path ``adjoint`` and the weight gradient ``outer`` follow from it by
    autograd, or are given. All three are compared with each other when a layer is used for the first time.

    Parameters
    ----------
    *natives
        Types, exactly; subclasses may compute in their own way. Or their dotted names, which imports nothing.

    Raises
    ------
    InputError
        If something else is given, or a type is known already.

    Examples
    --------
    >>> class Scaled(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight, self.scale = nn.Parameter(torch.ones(3, 2)), 2.0
    ...     def forward(self, x):
    ...         return self.scale * x @ self.weight.T
    >>> @converts(Scaled)
    ... class ScaledProduct(Operation):
    ...     def adjoint(self, y, weight, x):
    ...         return self.layer.scale * y @ weight
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> transport_free(nn.Sequential(Scaled(), nn.Linear(3, 2)), "fa")[0].feedback.shape
    torch.Size([3, 2])
    """
    if not natives:
        raise InputError("converts: expected at least one type of torch.nn.Module")
    for native in natives:
        if not (isinstance(native, str) or (isinstance(native, type) and issubclass(native, nn.Module))):
            raise InputError(f"converts: expected a type of torch.nn.Module or its dotted name, got {native!r}")
        if native in _CONVERSIONS or _named(native) in _CONVERSIONS:
            raise InputError(f"converts: {_named(native)} is known already")
        if isinstance(native, type) and issubclass(native, Converted):
            raise InputError(f"converts: {_named(native)} is the type of a converted layer; give the original type")

    def declare(target: _C) -> _C:
        if not (isinstance(target, type) and issubclass(target, (Converted, Operation))):
            raise InputError(f"converts: expected a class derived from Operation, got {target!r}")
        _CONVERSIONS.update(dict.fromkeys(natives, target))
        return target

    return declare


def known_types() -> list[str]:
    """Return the names of all types that are converted."""
    return [_named(native).rpartition(".")[2] for native in _CONVERSIONS]


def converted_class(native: type) -> type[Converted] | None:
    """Return the class into which modules of exactly this type are converted, or None."""
    if native not in _CLASSES:
        target = _CONVERSIONS.get(native) or _CONVERSIONS.get(_named(native))
        if target is None:
            return None
        if issubclass(target, Operation):
            body: dict[str, Any] = {"operations": target}
            bases: tuple[type, ...] = (_Operated, native)
        else:
            body, bases = {}, (target, native)
        if issubclass(target, native):
            _CLASSES[native] = target  # type: ignore[assignment]
        else:
            _CLASSES[native] = type(native.__name__, bases, {"__reduce_ex__": _reduced, **body})
    return _CLASSES[native]


def rebased(cls: type, base: type) -> type:
    """Return a class that parametrization has made, on another base."""
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{base.__name__}", (base,), body)


class _Operated(Synaptic):
    """A layer of a user's type, with operations of the user's own."""

    operations: type[Operation]
    _compared = False

    def forward(self, x: Tensor) -> Tensor:
        if not (self._compared or torch.compiler.is_compiling()):
            self.op.compare(x, self.weight, getattr(self, "bias", None))
            self._compared = x.numel() > 0
        return self._apply_synapse(x, self.op)

    def _operation(self) -> Operation:
        return self.operations(self)


def _named(native: type | str) -> str:
    return native if isinstance(native, str) else f"{native.__module__}.{native.__qualname__}"


def _reduced(module: Converted, protocol: Any) -> tuple[Any, ...]:
    """Return how to pickle a module of a class that was made here, and is found by its native type."""
    return _blank, (module.native(),), module.__dict__


def _blank(native: type) -> nn.Module:
    cls = converted_class(native)
    assert cls is not None
    return cls.__new__(cls)
