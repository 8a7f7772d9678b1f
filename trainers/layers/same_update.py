"""A warning about layers whose W and B do not take the same update, although their rule rests on it (Kolen-Pollack).

The update is whatever an optimiser's step does: the gradients, momentum, weight decay and the learning rate. So a
penalty on W, decay on W alone, a group with settings of its own and a weight that no optimiser moves all show.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
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


@dataclass
class _Moves:
    """The values of W and B before an optimiser's step, and how far it moved them; only the part that is known."""

    before: dict[str, Tensor] = field(default_factory=dict)
    moved: dict[str, Tensor] = field(default_factory=dict)


_watched: WeakKeyDictionary[_Updated, _Moves] = WeakKeyDictionary()
_steps: WeakKeyDictionary[torch.optim.Optimizer, int] = WeakKeyDictionary()


def watch_updates(layer: _Updated) -> None:
    """Compare the updates of W and B, and warn at the first that differ by more than the decay of W − B.

    That decay is parallel to W − B. An optimiser's steps 1, 2, 4, 8 and so on are compared, so that the comparison
    costs nothing in the long run. Updates that no optimiser of PyTorch makes are not seen.
    """
    _register()
    _watched[layer] = _Moves()


@cache  # once in a process, because PyTorch's hooks on all optimisers are global
def _register() -> None:
    register_optimizer_step_pre_hook(_before)
    register_optimizer_step_post_hook(_after)


def _before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if not _watched:
        return
    count = _steps[optimizer] = _steps.get(optimizer, 0) + 1
    if count & (count - 1):
        return
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer, moves in list(_watched.items()):
        for name in _NAMES:
            if any(id(p) in held for p in layer.parameters_of(name)):
                if name in moves.moved:  # it moved a second time, and the other has not moved
                    _say(layer, "no optimiser moves the " + ("weight" if name == "feedback" else "feedback"))
                    break
                moves.before[name] = layer.current(name).clone()


def _after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for layer, moves in list(_watched.items()):
        if moves.before.keys() <= moves.moved.keys():
            continue
        for name in moves.before.keys() - moves.moved.keys():
            moves.moved[name] = layer.current(name) - moves.before[name]
        if not any(p.requires_grad for p in layer.parameters_of("weight")):  # W is frozen, on purpose
            moves.before["weight"] = layer.current("weight")
            moves.moved["weight"] = torch.zeros_like(moves.before["weight"])
        if len(moves.moved) == len(_NAMES):
            _watched[layer] = _Moves()
            if _differ(*(moves.before[name] for name in _NAMES), *(moves.moved[name] for name in _NAMES)):
                _say(layer, "an optimiser's step moves W and B differently")


@torch.no_grad()
def _differ(weight: Tensor, feedback: Tensor, weight_moved: Tensor, feedback_moved: Tensor) -> bool:
    """Return whether the moves of W and B differ by more than a multiple of W − B, and by more than rounding."""
    apart, difference = (weight - feedback).double(), (weight_moved - feedback_moved).double()
    rest = difference - (difference * apart).sum() / apart.square().sum().clamp_min(1e-300) * apart
    eps = torch.finfo(feedback.dtype).eps
    allowed = eps**0.5 * (weight_moved.norm() + feedback_moved.norm()) + eps * (weight.norm() + feedback.norm())
    return bool(rest.norm() > allowed)


def _say(layer: _Updated, what: str) -> None:
    _watched.pop(layer, None)  # once is enough
    warnings.warn(
        f"{layer.rule.name}: {layer}: {what}, so W − B will not decay; give both to one optimiser with the same "
        "settings, and use layer.shared_weight() where the loss uses W beside its layer",
        stacklevel=2,
    )
