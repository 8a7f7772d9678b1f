"""Rules that project the error, or the target, straight to each layer."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.trainers.rules.networks import DIRECT, Encoder, close, gradients, network, step
from wtdiag.trainers.conformance.subject import convolutional
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.rules import RULES


@pytest.mark.parametrize("name", DIRECT)
def test_direct_rules_in_a_convolutional_network(name):
    net, x, target = network("conv", name)
    logits = net(x)
    error = torch.autograd.grad(F.cross_entropy(logits, target), logits, retain_graph=True)[0]
    signal = error if name != "drtp" else -F.one_hot(target, 3).double() / len(x)
    F.cross_entropy(logits, target).backward()
    # The reference: each layer trained alone, by autograd, on the error that is projected to the next one's input.
    segments = ([0, 1], [2, 3, 4], [5, 6], [7])
    reference = native_twin(net)
    h = x
    learned = {}
    for i, segment in enumerate(segments):
        out = h.detach()
        if name == "dkp":  # the error times the activity that B reaches
            b = net[segment[0]].feedback.detach()
            product = torch.einsum("nc,n...->c...", error, h.detach())
            learned[f"{segment[0]}.feedback"] = product / b[0, 0].numel() + net[0].rule.decay * b
        for j in segment:
            out = reference[j](out)
        after = {0: 2, 1: 5, 2: 7}.get(i)
        if after is None:
            out.backward(error)
        else:
            out.backward((signal @ net[after].feedback.flatten(1)).view(out.shape))
        h = out
    expected = gradients(reference, "") | learned
    assert set(gradients(net, "")) == set(expected)
    for key, got in gradients(net, "").items():
        torch.testing.assert_close(got, expected[key], rtol=1e-9, atol=1e-13)


def native_twin(net: nn.Module) -> nn.Module:
    """The native network with the weights of a converted one."""
    native = convolutional().double()
    native.load_state_dict({k: v for k, v in net.state_dict().items() if k in native.state_dict()})
    return native


@pytest.mark.parametrize("name", DIRECT)
def test_direct_rules_say_so_when_only_a_part_is_called(name):
    net, x, target = network("dense", name)
    with pytest.raises(RuntimeError, match=rf"^{name}: the output error never reached a layer; call the converted"):
        F.cross_entropy(net[4](net[2](net[0](x))), target).backward()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_drtp_reads_the_target_however_sure_the_network_is(smoothing):
    torch.manual_seed(0)
    output = (torch.randn(64, 10) * torch.logspace(-1, 3, 64)[:, None]).requires_grad_()
    target = torch.randint(10, (64,))
    loss = torch.nn.functional.cross_entropy(output, target, label_smoothing=smoothing)
    (error,) = torch.autograd.grad(loss, output)
    signal = RULES["drtp"]().signal(error, output.detach())
    assert torch.equal(signal.argmin(1), target)
    assert torch.equal(signal.sum(1), torch.full((64,), -1 / 64))


def test_direct_kolen_pollack_brings_the_last_layer_together_and_learns_from_every_position():
    net, x, target = network("dense", "dkp", decay=0.3)
    start = (net[4].feedback - net[4].weight).detach()
    optimizer = torch.optim.SGD([net[4].weight, net[4].feedback], lr=0.1)
    for _ in range(3):
        net.zero_grad()
        step(net, x, target)
        net[4].weight.grad += 0.3 * net[4].weight.detach()  # with the same decay, as Kolen-Pollack asks for
        optimizer.step()
    close((net[4].feedback - net[4].weight).detach(), 0.97**3 * start)
    grads = []
    for reduction in ("mean", "sum"):  # over the positions of a map
        net, x, target = network("conv", "dkp", decay=0.0, reduction=reduction)
        step(net, x, target)
        grads.append({name: (p, net.get_parameter(name).shape) for name, p in gradients(net, "feedback").items()})
    for name, (mean, shape) in grads[0].items():
        close(math.prod(shape[2:]) * mean, grads[1][name][0])
    words = transport_free(Encoder(True).double(), "dkp", sample=torch.randn(4, 3, 8).double(), decay=0.0)
    seen, errors = [], []
    _, layer = next(synapses(words))
    layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach()))
    output = words(torch.randn(4, 3, 8, dtype=torch.float64))
    output.register_hook(errors.append)
    F.cross_entropy(output, torch.arange(4) % 3).backward()
    close(layer.feedback.grad, torch.einsum("nc,npi->ci", errors[0], seen[0]))
