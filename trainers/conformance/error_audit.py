"""The audit of a network from elsewhere, which says whether its error path sees W, and what each layer learns by.

A weight is a matrix or kernel that the layer's output depends on, and B a tensor that the error which the layer sends
down depends on, but its output does not. So nothing has to be known of the code: each layer is run alone on the input
that it had, with other weights before the forward pass, other weights between the passes, and other errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, with_type
from wtdiag.trainers.conformance.replay import Replay, moved
from wtdiag.trainers.conformance.tensors_of import all_tensors, other_values, replaced, tensors_of, unchanged

BACKPROP, FIXED, LEARNED, SIGNS, DIRECT, UNKNOWN = (
    "backprop", "fixed feedback", "learned feedback", "tied signs", "direct feedback", "unknown",
)  # fmt: skip


@dataclass(frozen=True)
class LayerAudit:
    """What was found of one layer.

    Attributes
    ----------
    name, kind : str
        Its name, and its class.
    rule : str
        `BACKPROP`, `FIXED`, `LEARNED`, `SIGNS`, `DIRECT` or `UNKNOWN`.
    sees_weight : bool
        Whether the error that it sends down depends on the values of W; its signs do not count.
    sends : bool
        Whether its error reaches anything that learns.
    feedback : tuple of str
        The tensors that carry the error in place of W.
    stuck : bool
        Whether such a tensor requires a gradient, and a training step does not move it.
    note : str
        What else was seen.
    """

    name: str
    kind: str
    rule: str
    sees_weight: bool
    sends: bool
    feedback: tuple[str, ...] = ()
    stuck: bool = False
    note: str = ""

    @property
    def fails(self) -> bool:
        """Whether the layer transports its weights, or its feedback should learn and does not."""
        return (self.sees_weight and self.sends) or self.stuck


def audit(
    model: nn.Module, loss: Callable[[], Tensor], step: Callable[[], object] | None = None
) -> tuple[LayerAudit, ...]:
    """Say of each layer of a network whether its error path sees W, and by which rule it learns.

    The network keeps its weights; only random numbers are drawn.

    Parameters
    ----------
    model
        Any module, with layers of anyone's making.
    loss
        Function that runs ``model`` on a batch and returns its loss.
    step
        Function that takes one training step, which shows whether B moves. Default: one of SGD on all parameters that
        require a gradient.

    Raises
    ------
    InputError
        If ``loss`` does not return a number, nothing in ``model`` has a matrix of weights, or the code fails.

    Examples
    --------
    >>> net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(5, 4)
    >>> [(layer.name, layer.rule, layer.sees_weight) for layer in audit(net, lambda: net(x).square().mean())]
    [('0', 'backprop', True), ('2', 'backprop', True)]
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"audit: model is {type(model).__name__}; expected a torch.nn.Module")
    with torch.random.fork_rng(devices=[]), unchanged(all_tensors(model)):
        try:
            calls = _calls(model, loss)
            if not calls:
                raise InputError("audit: no module of the network holds a matrix of weights")
            moves = _moves(model, loss, step)
            return tuple(_layer(name, call, model, loss, moves) for name, call in calls.items())
        except InputError:
            raise
        except Exception as error:  # the network and the loss are the user's code, which may raise anything
            raise InputError(f"audit: the network cannot be run: {with_type(error)}") from error
        finally:
            model.zero_grad()


def _calls(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, tuple[Replay, bool]]:
    """Return by name the modules with a matrix of their own and their last call, with whether its input has a gradient.

    The call holds all tensors that the network can reach once it has run. It has no arguments if there was none.
    """
    calls: dict[str, tuple[Replay, bool]] = {}
    tensors: dict[str, Tensor] = {}
    hooks = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            if not arguments or not isinstance(arguments[0], Tensor):
                return
            kept = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in arguments)
            calls[name] = Replay(module, kept, named, tensors), arguments[0].requires_grad

        return hook

    for name, module in model.named_modules():
        if any(p.dim() > 1 for p in module.parameters(recurse=False)):
            calls[name] = Replay(module, (), {}, tensors), False  # until it is called
            hooks.append(module.register_forward_pre_hook(note(name), with_kwargs=True))
    try:
        value = loss()
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise InputError(f"audit: loss returned {value!r:.80}; expected a number with a gradient")
    torch.autograd.backward(value)
    tensors |= all_tensors(model)
    return calls


def _moves(model: nn.Module, loss: Callable[[], Tensor], step: Callable[[], object] | None) -> set[str]:
    """Return the names of the tensors that a training step changes; the network has its values back after it."""
    before = _values(model)

    def descend() -> None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        optimizer.step()

    with unchanged({name: tensor for name, (tensor, _) in before.items()}):
        (step or descend)()
        now = _values(model)
        return {name for name, (_, value) in now.items() if name in before and moved(value, before[name][1], 0.0)}


def _values(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (tensor, tensor.detach().clone()) for name, tensor in all_tensors(model).items()}


def _layer(
    name: str, call: tuple[Replay, bool], model: nn.Module, loss: Callable[[], Tensor], moves: set[str]
) -> LayerAudit:
    replay, sends = call
    kind = type(replay.module).__name__
    if not replay.arguments:
        sees = _sees_in_network(replay, model, loss)
        note = "the network uses its weights without calling it on a tensor, so it was not run alone"
        return LayerAudit(name or "model", kind, UNKNOWN, sees, sees, note=note)
    own = tensors_of(replay.module, name)
    try:
        weights = [t for key, t in own.items() if t.dim() > 1 and replay.is_used(t)]
        if not weights or not replay.x.is_floating_point():
            return LayerAudit(name or "model", kind, UNKNOWN, False, sends, note="no matrix that acts on its input")
        direct, linear = replay.is_direct(), replay.is_linear()
        sees = any(replay.follows(w, other_values(w), between=True) for w in weights)
        signs = False
        if linear and not direct:
            sees = sees or any(replay.follows(w, w.detach() * (0.5 + torch.rand_like(w))) for w in weights)
            signs = not sees and any(replay.follows(w, other_values(w)) for w in weights)
        exact = replay.is_exact()
        among = own if not sees else {}
        feedback = list(_feedback(replay, among, weights))
        if not feedback and not sees:
            feedback = list(_feedback(replay, {k: t for k, t in replay.tensors.items() if k not in own}, weights))
    except Exception as error:  # a layer that cannot run alone, because it needs the whole network
        reason = f"it cannot be run alone ({with_type(error)})"
        return LayerAudit(name or "model", kind, UNKNOWN, _sees_in_network(replay, model, loss), sends, note=reason)
    found, note = UNKNOWN, ""
    if direct:
        found = DIRECT
    elif sees and exact:
        found = BACKPROP
    elif signs:
        found = SIGNS
    elif sees:
        note = "the error path sees W, but is not its transpose"
    elif linear or feedback:
        found = LEARNED if any(key in moves for key in feedback) else FIXED
        note = "" if feedback else "B was not found among the tensors of the network"
    if sends and found == BACKPROP and not _reaches(replay, model, loss):
        return LayerAudit(name or "model", kind, UNKNOWN, False, sends, note="its error is replaced outside the layer")
    still = [key for key in feedback if replay.tensors[key].requires_grad and key not in moves]
    if still:
        note = f"{', '.join(still)} requires a gradient, but a training step does not move it"
    return LayerAudit(name or "model", kind, found, sees, sends, tuple(feedback), bool(still), note)


def _feedback(replay: Replay, tensors: dict[str, Tensor], weights: list[Tensor]) -> Iterator[str]:
    """Yield the names of the tensors that the error depends on and the output does not."""
    for key, tensor in tensors.items():
        if any(tensor is w for w in weights) or tensor.numel() < 2:
            continue
        value = other_values(tensor)
        if not replay.is_used(tensor) and (
            replay.follows(tensor, value) or replay.follows(tensor, value, between=True)
        ):
            yield key


def _sees_in_network(replay: Replay, model: nn.Module, loss: Callable[[], Tensor]) -> bool:
    """Return whether other gradients of the whole network change if W changes between its passes."""

    def value_of_loss() -> Tensor:
        with unchanged(replay.tensors):
            torch.manual_seed(0)
            return loss().detach()

    weights, first = [], value_of_loss()
    for tensor in tensors_of(replay.module).values():
        with replaced(tensor, other_values(tensor)):
            if tensor.dim() > 1 and moved(value_of_loss(), first):
                weights.append(tensor)

    def change() -> None:
        for weight in weights:
            weight.data.copy_(other_values(weight))

    return _changes_others(replay, model, loss, between=change)


def _reaches(replay: Replay, model: nn.Module, loss: Callable[[], Tensor]) -> bool:
    """Return whether other gradients of the whole network change if the error that the layer sends is tripled."""

    def triple(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        x = arguments[0].view_as(arguments[0])
        if x.requires_grad:
            x.register_hook(lambda error: 3 * error)
        return x, *arguments[1:]

    return _changes_others(replay, model, loss, before=triple)


def _changes_others(
    replay: Replay,
    model: nn.Module,
    loss: Callable[[], Tensor],
    before: Callable[..., Any] = lambda module, arguments: None,
    between: Callable[[], None] = lambda: None,
) -> bool:
    """Return whether the gradients of other layers change with a hook before the layer, or a change between passes."""
    own = {id(p) for p in replay.module.parameters(recurse=False)}
    found: list[list[Tensor]] = []
    plain: tuple[Callable[..., Any], Callable[[], None]] = lambda module, arguments: None, lambda: None
    for hook, change in (plain, (before, between)):
        model.zero_grad()
        handle = replay.module.register_forward_pre_hook(hook)
        try:
            with unchanged(replay.tensors):
                torch.manual_seed(0)
                value = loss()
                change()
                torch.autograd.backward(value)
        finally:
            handle.remove()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None and id(p) not in own])
    return any(moved(a, b) for a, b in zip(*found, strict=True))
