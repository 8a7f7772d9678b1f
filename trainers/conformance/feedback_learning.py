"""Checks of a rule: how it is described, and how its feedback learns."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import torch
from torch import Tensor
from torch.nn import functional as F

from wtdiag.trainers.conformance.requirements import Inapplicable, check, require
from wtdiag.trainers.conformance.subject import (
    LAYERS,
    NETWORKS,
    Subject,
    descend,
    gradients,
    require_close,
    same,
)
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.rules.base import Recipe
from wtdiag.trainers.rules.local import Local
from wtdiag.trainers.rules.perturbed import Perturbed


@check("The rule is documented data: a frozen dataclass with its title, equation and reference.")
def description(subject: Subject) -> str:
    """Require texts without blanks around them, a docstring, and a rule that can be copied by value and pickled."""
    rule, kind = subject.rule, type(subject.rule)
    for name in ("name", "title", "equation", "reference"):
        text = getattr(rule, name)
        require(isinstance(text, str) and text.strip() == text != "", f"{name} is {text!r:.40}; expected a text")
    require("__doc__" in vars(kind) and bool(kind.__doc__), "the class has no docstring")
    require(kind.__dataclass_params__.frozen, "the dataclass is not frozen")  # type: ignore[attr-defined]
    require(isinstance(kind.recipe, Recipe), f"recipe is {kind.recipe!r:.40}; expected a Recipe")
    known = {"weight", "output", "weight_grad", "error"}
    require(set(rule.shares) <= known, f"shares holds {', '.join(sorted(set(rule.shares) - known))}")
    require(dataclasses.replace(rule) == rule, "a copy with the same coefficients is not the same")
    require(kind(**dataclasses.asdict(rule)) == rule, "its fields do not build it again")
    require(pickle.loads(pickle.dumps(rule)) == rule, "it does not survive pickling")
    return ""


@check("B's gradient is that of the loss that the rule writes down (`feedback_loss`).")
def gradient_of_loss(subject: Subject) -> str:
    """Require that ``feedback_grad`` equals autograd of ``feedback_loss``, in float64 and for each type of layer."""
    if not subject.rule.learned:
        raise Inapplicable("B does not learn.")
    if subject.direct:
        raise Inapplicable("A direct rule has no local loss.")
    if isinstance(subject.rule, Perturbed):
        raise Inapplicable("The noise of its loss belongs to the forward pass.")
    for kind in LAYERS:
        net, x, target = subject.network(kind)
        ((name, layer),) = synapses(net)
        outputs: list[Tensor] = []
        layer.register_forward_hook(lambda layer, inputs, output, outputs=outputs: outputs.append(output))
        torch.manual_seed(1)
        value = F.cross_entropy(net(x), target)
        (dy,) = torch.autograd.grad(value, outputs[0], retain_graph=True)
        torch.manual_seed(2)
        torch.autograd.backward(value)
        learned = layer.learned_feedback
        got = learned.grad
        require(got is not None, f"{kind}: B learns, but received no gradient")
        feedback = learned.detach().clone().requires_grad_()
        weight = layer.weight.detach()
        y, task = layer.op.apply(x, weight), layer.shared_update(layer.op.outer(x, dy, weight))
        positions = layer.op.positions(x, dy)
        s = Local(layer.op, x, feedback, positions, y, weight, task, 0, layer.bias)
        torch.manual_seed(2)
        loss = subject.rule.feedback_loss(s)
        if loss is None:
            raise Inapplicable("The rule writes no loss down.")
        (expected,) = torch.autograd.grad(loss, feedback)
        assert got is not None
        require_close({name: got}, {name: expected}, 1e-9, kind)
    return ""


@check("B moves in training if it learns, and only then.")
def feedback_moves(subject: Subject) -> str:
    """Require that a few steps move a learned B in every layer, and that nothing moves a fixed one."""
    if subject.rule.transports:
        raise Inapplicable("B is W.")
    for kind in NETWORKS:
        net, x, target = subject.network(kind)
        before = {name: layer.feedback.detach().clone() for name, layer in synapses(net)}
        decay = 0.0 if subject.rule.learned else 0.5
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, weight_decay=decay)
        for seed in range(3):
            optimizer.zero_grad()
            descend(net, x, target, seed)
            optimizer.step()
        for name, layer in synapses(net):
            if subject.rule.learned:
                learned = layer.learned_feedback
                require(learned.requires_grad, f"{kind}: B of {name} does not require a gradient")
                require(learned.grad is not None, f"{kind}: B of {name} received no gradient")
                require(not torch.equal(layer.feedback, before[name]), f"{kind}: B of {name} never moves")
                continue
            require(not layer.feedback.requires_grad, f"{kind}: B of {name} is fixed, but requires a gradient")
            require(layer.feedback.grad is None, f"{kind}: B of {name} is fixed, but received a gradient")
            still = subject.rule.tied or torch.equal(layer.feedback, before[name])
            require(still, f"{kind}: B of {name} is fixed, but moves")
    return "B learns." if subject.rule.learned else "B follows W." if subject.rule.tied else "B is fixed."


@check("The learning of B stays in its layer: the other gradients are those with B fixed.")
def learning_is_local(subject: Subject) -> str:
    """Require that the gradients of everything else are the same whether B learns or not."""
    if not subject.rule.learned:
        raise Inapplicable("B does not learn.")
    for kind in NETWORKS:
        net, x, target = subject.network(kind)
        fixed = copy.deepcopy(net)
        for _, layer in synapses(fixed):
            for parameter in layer.parameters_of("feedback"):
                parameter.requires_grad_(False)
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        for each, value in zip((net, fixed), inputs, strict=True):
            descend(each, value, target)
        errors = [{"x": value.grad} for value in inputs if value.grad is not None]
        require(len(errors) == 2 and same(*errors), f"{kind}: the error signal depends on whether B learns")
        for which in ("weight", "bias"):
            alike = same(gradients(net, which), gradients(fixed, which))
            require(alike, f"{kind}: the gradients of each {which} depend on whether B learns")
        learned = {p for _, layer in synapses(net) for p in layer.parameters_of("feedback") if p.requires_grad}
        require(len(gradients(net, "feedback")) == len(learned), f"{kind}: a layer's B has no gradient")
        require(not gradients(fixed, "feedback"), f"{kind}: B has a gradient although it is fixed")
    return ""


@check("A backward pass through the backward pass reaches W, and leaves B its local gradient.")
def second_order(subject: Subject) -> str:
    """Require that a penalty on the input's gradient is felt by W and adds nothing to the gradient of a local B."""
    for kind in NETWORKS:
        net, x, target = subject.network(kind)
        local = copy.deepcopy(net)
        given = x.clone().requires_grad_()
        torch.manual_seed(1)
        loss = F.cross_entropy(net(given), target)
        (dx,) = torch.autograd.grad(loss, given, create_graph=True)
        torch.manual_seed(2)
        torch.autograd.backward(loss + 300 * dx.square().sum())
        torch.manual_seed(1)
        loss = F.cross_entropy(local(x), target)
        torch.manual_seed(2)
        torch.autograd.backward(loss)
        for name, grad in gradients(net).items():
            require(bool(grad.isfinite().all()), f"{kind}: the gradient of {name} is not finite")
        plain, weights = gradients(local, "weight"), gradients(net, "weight")
        felt = any((weights[name] - plain[name]).norm() > 0.01 * plain[name].norm() for name in plain)
        # The error of a direct rule need not depend on W at all.
        require(felt or subject.direct, f"{kind}: W does not feel a penalty on the input's gradient")
        if not {"weight_grad", "error"} & subject.rule.shares:  # they hold the penalty's part too
            require_close(gradients(net, "feedback"), gradients(local, "feedback"), 1e-9, kind)
    return ""
