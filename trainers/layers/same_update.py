"""A warning about layers whose W and B do not take the same update, although their rule rests on it (Kolen-Pollack).

The update is whatever an optimiser's step does: the gradients, momentum, weight decay and the learning rate. So a
penalty on W, decay on W alone, a group with settings of its own and a weight that no optimiser moves all show.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from wtdiag.trainers.rules import Rule

_NAMES = ("weight", "feedback")


class _Updated(Protocol):
    @property
    def rule(self) -> Rule: ...
    def current(self, name: str) -> Tensor: ...
    def parameters_of(self, name: str) -> list[nn.Parameter]: ...


_watched: WeakKeyDictionary[_Updated, dict[str, tuple[Tensor, Tensor]]] = WeakKeyDictionary()
"""Layers, with the value of W or B before an optimiser's step and its move, while that of the other is not known."""
_moving: WeakKeyDictionary[_Updated, dict[str, Tensor]] = WeakKeyDictionary()
"""Layers that the step which goes on moves, with the values of W and B before it."""
_steps: WeakKeyDictionary[torch.optim.Optimizer, int] = WeakKeyDictionary()


def watch_updates(layer: _Updated) -> None:
    """Compare the updates of W and B, and warn at the first that differ by more than the decay of W − B.

    That decay is parallel to W − B. An optimiser's steps 1, 2, 4, 8 and so on are compared, so that the comparison
    costs nothing in the long run. Updates that no optimiser of PyTorch makes are not seen.
    """
    _register()
    _watched[layer] = {}


def unwatch_updates(layer: _Updated) -> None:
    """Compare the updates of a layer no more, because noise shall move its W and B apart."""
    _watched.pop(layer, None)


@cache  # once in a process, because PyTorch's hooks on all optimisers are global
def _register() -> None:
    register_optimizer_step_pre_hook(_before)
    register_optimizer_step_post_hook(_after)


def _before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    _moving.clear()
    if not _watched:
        return
    count = _steps[optimizer] = _steps.get(optimizer, 0) + 1
    if count & (count - 1):
        return
    held = {_place(p) for group in optimizer.param_groups for p in group["params"]}
    for layer in list(_watched):
        names = [name for name in _NAMES if any(_place(p) in held for p in layer.parameters_of(name))]
        if names:
            _moving[layer] = {name: layer.current(name).clone() for name in names}


def _after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    moving = dict(_moving)
    _moving.clear()
    for layer, before in moving.items():
        moves = _watched.pop(layer, {})
        if again := moves.keys() & before.keys():
            _say(layer, f"no optimiser moves the {'weight' if 'feedback' in again else 'feedback'}")
            continue
        moves |= {name: (value, layer.current(name) - value) for name, value in before.items()}
        if not any(p.requires_grad for p in layer.parameters_of("weight")):  # W is frozen, on purpose
            weight = layer.current("weight")
            moves["weight"] = weight, torch.zeros_like(weight)
        complete = len(moves) == len(_NAMES)
        if complete and _differ(*moves["weight"], *moves["feedback"]):
            _say(layer, "an optimiser's step moves W and B differently")
        else:
            _watched[layer] = {} if complete else moves


def _place(parameter: Tensor) -> int:
    """Return what a parameter shares with its views, which some optimisers hold in its stead."""
    return parameter.data_ptr() or id(parameter)  # parameters that are distributed have no memory of their own


@torch.no_grad()
def _differ(weight: Tensor, weight_moved: Tensor, feedback: Tensor, feedback_moved: Tensor) -> bool:
    """Return whether the moves of W and B differ by more than a multiple of W − B, and by more than rounding."""
    apart, difference = (weight - feedback).double(), (weight_moved - feedback_moved).double()
    rest = difference - (difference * apart).sum() / apart.square().sum().clamp_min(1e-300) * apart
    eps = torch.finfo(feedback.dtype).eps
    allowed = eps**0.5 * (weight_moved.norm() + feedback_moved.norm()) + eps * (weight.norm() + feedback.norm())
    return bool(rest.norm() > allowed)


def _say(layer: _Updated, what: str) -> None:
    warnings.warn(
        f"{layer.rule.name}: {layer}: {what}, so W − B need not decay; give both to one optimiser with the same "
        "settings, use layer.shared_weight() where the loss uses W beside its layer, and under optimisers other than "
        "SGD let a decoupled weight decay take the place of the rule's",
        stacklevel=2,
    )
