"""Checks of a rule: the audit of weight transport, which says whether the error path sees W, and whether B."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.conformance.requirements import Inapplicable, check, require
from wtdiag.trainers.conformance.subject import LAYERS, NETWORKS, Subject, change_weights, descend, gradients, same
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.rules.base import Rule


def _changed_between(subject: Subject, kind: str, change: Any) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Return two equal networks after a pass each, the second changed between forward and backward, and their dx."""
    net, x, target = subject.network(kind)
    other = copy.deepcopy(net)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    losses = []
    for each, value in zip((net, other), inputs, strict=True):
        torch.manual_seed(1)
        losses.append(F.cross_entropy(each(value), target))
    change(other)
    for loss in losses:
        torch.manual_seed(2)
        torch.autograd.backward(loss)
    first, second = (value.grad for value in inputs)
    assert first is not None
    assert second is not None
    return net, other, first, second


@check("The error signal does not move if W changes between the forward and the backward pass.")
def no_transport(subject: Subject) -> str:
    """Require that no error signal reads W after the forward pass, unless the rule says that it transports."""
    reads_w = False
    for kind in NETWORKS:
        net, other, dx, moved = _changed_between(subject, kind, change_weights)
        still = torch.equal(dx, moved) and same(gradients(net, "bias"), gradients(other, "bias"))
        if subject.rule.transports:
            require(not still, f"{kind}: the rule says that B is W, but the error does not move with W")
            continue
        require(still, f"{kind}: the error signal moves with W")
        if type(subject.rule).weight_grad is Rule.weight_grad:
            fixed = same(gradients(net, "weight"), gradients(other, "weight"))
            require(fixed, f"{kind}: the gradient of W moves with W")
        learned = same(gradients(net, "feedback"), gradients(other, "feedback"))
        declared = "weight" in subject.rule.shares
        require(learned or declared, f"{kind}: the gradient of B moves with W, which `shares` does not name")
        reads_w |= not learned
    if subject.rule.transports:
        return "This is backprop: the error travels through W, as the rule says."
    return "The learning of B reads W in its own layer." if reads_w else ""


@check("The error signal does not depend on W as it is before the forward pass either, or on its signs alone.")
def no_copy_of_weights(subject: Subject) -> str:
    """Require that B is no copy of W: at an input of zero, the layer's output is its bias, whatever W is."""
    seen = set()
    for kind in LAYERS:
        net, x, target = subject.without_noise.network(kind)
        (layer,) = (layer for _, layer in synapses(net))
        first = layer.weight.detach().clone()
        scaled = first * (0.5 + torch.rand_like(first))
        sent = []
        for weight in (first, scaled, torch.randn_like(first)):
            layer.weight.data.copy_(weight)
            zero = torch.zeros_like(x, requires_grad=True)
            descend(net, zero, target)
            assert zero.grad is not None
            sent.append(zero.grad)
        magnitudes, signs = (not torch.equal(sent[0], other) for other in sent[1:])
        seen.add("W" if magnitudes else "signs" if signs else "nothing")
    if subject.rule.transports:
        require(seen == {"W"}, "the rule says that B is W, but the error does not follow W")
        return "This is backprop."
    require("W" not in seen, "the error signal follows the magnitudes of W: B is a copy of it, or made from it")
    if subject.rule.tied:
        return "B takes the signs of W before each pass." if "signs" in seen else ""
    require("signs" not in seen, "the error signal follows the signs of W, but the rule is not `tied`")
    return ""


@check("The error signal moves if B changes between the forward and the backward pass.")
def error_through_feedback(subject: Subject) -> str:
    """Require that B carries the error."""
    if subject.rule.transports:
        raise Inapplicable("B is W.")

    def change(net: nn.Module) -> None:
        for _, layer in synapses(net):
            for parameter in layer.parameters_of("feedback"):
                parameter.data.mul_(0.5 + torch.rand_like(parameter))

    for kind in NETWORKS:
        _, _, dx, moved = _changed_between(subject, kind, change)
        require(not torch.equal(dx, moved), f"{kind}: the error signal does not depend on B")
    return ""


@check("W is kept between the passes only if the rule reads it.")
def weights_not_held(subject: Subject) -> str:
    """Require that autograd holds W for the backward pass if the rule says that it reads it, and that it then does."""
    reads = subject.rule.transports or "weight" in subject.rule.shares
    for kind in NETWORKS:
        net, x, _ = subject.network(kind)
        held: set[int] = set()

        def pack(tensor: Tensor, held: set[int] = held) -> Tensor:
            held.add(tensor.untyped_storage().data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(x)
        holds = {layer.weight.untyped_storage().data_ptr() in held for _, layer in synapses(net)}
        require(holds == {reads}, f"{kind}: W is {'not ' if reads else ''}kept for the backward pass")
        if reads and not subject.rule.transports:
            net, other, _, _ = _changed_between(subject, kind, change_weights)
            require(not same(gradients(net), gradients(other)), f"{kind}: `shares` names W, but nothing reads it")
    return "The rule reads W." if reads else ""
