"""The place of a layer in its network, as its own forward passes show it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

if TYPE_CHECKING:
    from torch import Tensor

_KEYS, _RUNS = itertools.count(), itertools.count()
_TRACED: dict[int, int] = {}


@dataclass
class Place:
    """A layer's place among the others, as its forward passes show it.

    It is an object of its own so that the replicas of a layer that DataParallel makes share it.

    Attributes
    ----------
    key : int
        A number that no other layer has.
    order : int or None
        A number that grows in the order in which layers first ran, or were traced by torch.compile; None before.
    below : frozenset of int
        Keys of the layers whose outputs reach this one with no other layer between, as far as the autograd graph of a
        pass has shown. An evaluation, or a part of the network that runs alone, leaves them as they are.
    carries_error : bool
        Whether B sends the error to a layer below, as seen in the last forward pass with gradients.
    used : bool
        Whether an error has reached the layer's output, and so passed through its feedback; in a compiled network,
        whether the layer was traced in a pass with gradients.
    bypassed : bool
        Whether its weight has received a gradient although the feedback was not used.
    beside : bool
        Whether the model also uses its weight without calling it, as far as a pass has shown.
    """

    key: int = field(default_factory=lambda: next(_KEYS))
    order: int | None = None
    below: frozenset[int] = frozenset()
    carries_error: bool = True
    used: bool = False
    bypassed: bool = False
    beside: bool = False
    _searches: int = 0

    def ran(self) -> None:
        """Note that the layer ran for the first time."""
        self.order = next(_RUNS)

    def connected(self, x: Tensor, y: Tensor) -> None:
        """Note that the layer made ``y`` from ``x``, in a pass with gradients."""
        if (node := y.grad_fn) is not None:
            node._wtdiag_place = self.key  # type: ignore[attr-defined]
            if not self.used:
                y.register_hook(self._reached)  # type: ignore[no-untyped-call]
        if not self.below and x.grad_fn is not None:
            self._searches += 1
            if not self._searches & (self._searches - 1):  # ever more rarely, because a first layer never finds any
                self.below = _marked(x.grad_fn) - {self.key}

    def _reached(self, error: Tensor) -> None:
        self.used = True

    def for_a_copy(self) -> Place:
        """Return the place of a copy of the layer, which is in another network, whose layers have other keys."""
        place = Place(order=self.order, carries_error=self.carries_error)
        if self.order is not None:
            _TRACED[place.key] = self.order
        return place


def traced_order(key: int) -> int:
    """Return the `Place.order` of a layer that torch.compile traces, the same in every trace."""
    if key not in _TRACED:
        _TRACED[key] = next(_RUNS)
    return _TRACED[key]


def refuse_transforms() -> bool:
    """Refuse to be traced by torch.compile inside `torch.func.grad` and the like.

    The compiler leaves out the backward pass of custom autograd functions there, and returns other gradients.

    Raises
    ------
    RuntimeError
        If it is traced there.
    """
    if torch._C._functorch.maybe_current_level() is not None:
        raise RuntimeError(
            "torch.compile does not keep the backward pass of converted layers inside torch.func; compile the model, "
            "or call the function without torch.compile"
        )
    return True


# This is what torch.compiler.assume_constant_result does; but importing the compiler takes a second.
traced_order._dynamo_marked_constant = True  # type: ignore[attr-defined]
refuse_transforms._dynamo_marked_constant = True  # type: ignore[attr-defined]


class _Placed(Protocol):
    @property
    def place(self) -> Place: ...


_L = TypeVar("_L", bound=_Placed)


def in_forward_order(layers: Iterable[tuple[str, _L]]) -> list[tuple[str, _L]]:
    """Return named layers so that each follows those below it, otherwise as they first ran; the rest comes last."""
    waiting = sorted(layers, key=_rank)
    keys = {layer.place.key for _, layer in waiting}
    ordered = []
    while waiting:
        # Layers that are used several times may form a cycle: then the one that ran first comes first.
        chosen = next((item for item in waiting if not item[1].place.below & keys), waiting[0])
        waiting.remove(chosen)
        keys.discard(chosen[1].place.key)
        ordered.append(chosen)
    return ordered


def _rank(item: tuple[str, _Placed]) -> tuple[bool, int]:
    order = item[1].place.order
    return order is None, order or 0


def _marked(node: Any) -> frozenset[int]:
    """Return the keys of the layers nearest to a node of the autograd graph on the way to the inputs."""
    keys, seen, waiting = set(), set(), [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        key = getattr(node, "_wtdiag_place", None)
        if key is None:
            waiting += [before for before, _ in node.next_functions]
        else:
            keys.add(key)
    return frozenset(keys)
