"""Backward passes through backward passes: gradient penalties and meta-learning."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trainers.rules.networks import DIRECT, FACTORED, LEARNED, SHARING, close, network, step
from wtdiag.trainers.conformance.subject import NETWORKS
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.rules import rule


def alike(net: nn.Module) -> nn.Module:
    """The network with the same weights whose feedback is the same, but fixed."""
    twin = copy.deepcopy(net)
    for _, layer in synapses(twin):
        layer.rule, feedback = rule("fa"), layer.feedback.detach()
        for _, key in layer.entries_of("feedback"):
            del layer._parameters[key]
        layer.feedback = nn.Parameter(feedback, requires_grad=False)
    return twin


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", [name for name in LEARNED if name not in (*DIRECT, "np")])  # which read the error
def test_a_gradient_penalty_leaves_feedback_its_local_gradient(name, kind):
    net, x, target = network(kind, name)
    local, fixed = copy.deepcopy(net), alike(net)
    for each in (net, fixed):
        given = x.clone().requires_grad_()
        loss = F.cross_entropy(each(given), target)
        (dx,) = torch.autograd.grad(loss, given, create_graph=True)
        torch.manual_seed(1)
        (loss + 300 * dx.square().sum()).backward()
    torch.manual_seed(1)
    F.cross_entropy(local(x), target).backward()
    for key, layer in synapses(net):
        other = fixed.get_submodule(key)
        decay = layer.rule.decay if name in SHARING else 0.0
        close(layer.weight.grad, other.weight.grad + decay * layer.weight.detach())
        close(layer.bias.grad, other.bias.grad)
        if name in SHARING:
            learned = layer.learned_feedback
            close(learned.grad, layer.shared_update(other.weight.grad) + decay * learned.detach())
        else:
            close(layer.feedback.grad, local.get_submodule(key).feedback.grad)
            plain = local.get_submodule(key).weight.grad
            assert (layer.weight.grad - plain).norm() > 0.1 * plain.norm()  # the penalty is felt


def inner_step(net: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Parameters after a step that can be differentiated, as meta-learning takes one."""
    trained = {key: p for key, p in net.named_parameters() if p.requires_grad}
    moved = torch.autograd.grad(F.cross_entropy(net(x), target), list(trained.values()), create_graph=True)
    return dict(net.named_parameters()) | {
        key: p - 0.5 * gradient for (key, p), gradient in zip(trained.items(), moved, strict=True)
    }


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    "name", [name for name in LEARNED if name not in ("wm", "ldrl", "dkp", "np")]
)  # whose noise or error is another
def test_a_step_through_a_step_adds_one_local_gradient_for_each(name, kind):
    net, x, target = network(kind, name)
    local, fixed = copy.deepcopy(net), alike(net)
    after = inner_step(net, x, target)
    F.cross_entropy(torch.func.functional_call(net, after, (x.flip(0),)), target).backward()
    outer = {key: p.detach().requires_grad_(net.get_parameter(key).requires_grad) for key, p in after.items()}
    F.cross_entropy(torch.func.functional_call(local, outer, (x.flip(0),)), target).backward()
    step(local, x, target)
    decay = 0.0
    if name in SHARING:  # its own decay is no part of the task that is differentiated
        decay = net[0].rule.decay
    else:
        learnt = {key: p.detach() for key, p in after.items() if key.endswith("feedback")}
        F.cross_entropy(
            torch.func.functional_call(fixed, inner_step(fixed, x, target) | learnt, (x.flip(0),)), target
        ).backward()
    for key, layer in synapses(net):
        w, b = f"{key}.weight", f"{key}.feedback"
        if name in SHARING:
            b = b + "_right" * (name in FACTORED)
            learned = layer.learned_feedback
            apart = layer.shared_update((layer.weight + after[w]).detach()) - (learned + after[b]).detach()
            close(layer.shared_update(layer.weight.grad) - learned.grad, decay * apart)
        else:
            close(layer.feedback.grad, outer[b].grad + local.get_submodule(key).feedback.grad)
            close(layer.weight.grad, fixed.get_submodule(key).weight.grad)
