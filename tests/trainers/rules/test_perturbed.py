"""Rules that draw noise in the forward pass, against what they write out and against what they expect on average."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.layers.revert import revert
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import rule
from wtdiag.trainers.rules.perturbed import Perturbed

pytestmark = pytest.mark.noisy


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 2, stride=2), nn.Flatten(),
                         nn.Linear(18, 3))  # fmt: skip


NETWORKS = {"dense": (dense, (7, 6)), "conv": (convolutional, (7, 2, 6, 6))}


def made(kind: str, name: str, **coefficients):
    torch.manual_seed(0)
    make, shape = NETWORKS[kind]
    x = torch.randn(shape, dtype=torch.float64)
    return transport_free(make().double(), name, **coefficients), x, torch.arange(len(x)) % 3


@pytest.fixture
def noises(monkeypatch):
    """The noise that was drawn, in order."""
    drawn, original = [], Perturbed.draw

    def watched(self, x):
        drawn.append(original(self, x))
        return drawn[-1]

    monkeypatch.setattr(Perturbed, "draw", watched)
    return drawn


def by_hand(net: nn.Module, x: Tensor, noises: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Output of a network with noise at the input of its layers; the inputs and outputs of these layers."""
    inputs, outputs, left = [], [], list(noises)
    plain = {layer: native for (_, layer), native in zip(synapses(net), weighted(revert(net)), strict=True)}
    for module in net:
        if module in plain:
            x = x + left.pop(0) if left else x
            inputs.append(x)
            y = plain[module](x)
            outputs.append(y)
            x = y
        else:
            x = module(x)
    return x, inputs, outputs


def weighted(net: nn.Module) -> list[nn.Module]:
    return [module for module in net if hasattr(module, "weight")]


def errors(net: nn.Module, x: Tensor, target: Tensor, noises: list[Tensor]) -> list[Tensor]:
    """The errors at the outputs of the layers as B brings them, of the mean loss."""
    output, inputs, outputs = by_hand(net, x, noises)
    (delta,) = torch.autograd.grad(F.cross_entropy(output, target), outputs[-1], retain_graph=True)
    found = [delta]
    for (_, layer), at, before in reversed(list(zip([*synapses(net)][1:], inputs[1:], outputs, strict=False))):
        sent = layer.op.adjoint(found[0], layer.feedback.detach(), at)
        found.insert(0, torch.autograd.grad(at, before, sent, retain_graph=True)[0])
    return found


@pytest.mark.parametrize("kind", NETWORKS)
def test_live_mirror_as_written_out(kind, noises):
    net, x, target = made(kind, "wm-live", noise_std=0.3, amp=0.7, decay=0.2)
    F.cross_entropy(net(x), target).backward()
    output, inputs, outputs = by_hand(net, x, noises)
    torch.testing.assert_close(net.eval()(x).shape, output.shape)
    deltas = errors(net, x, target, noises[: len(inputs)])
    for i, (_, layer) in enumerate(synapses(net)):
        y = outputs[i].detach() - outputs[i].detach().mean(0, keepdim=True)
        positions = y[0, 0].numel() if y.dim() > 2 else 1
        product = layer.op.outer(noises[i], y, layer.feedback) / (len(x) - 1) / positions
        expected = 0.2 * layer.feedback - 0.7 * product / 0.3**2
        torch.testing.assert_close(layer.feedback.grad, expected.detach(), rtol=1e-9, atol=1e-11)
        task = layer.op.outer(inputs[i].detach(), deltas[i], layer.weight)  # the task pays for the noise
        torch.testing.assert_close(layer.weight.grad, task, rtol=1e-9, atol=1e-11)


def test_live_mirror_follows_w_on_average():
    torch.manual_seed(0)
    layer = transport_free(nn.Linear(4, 3).double(), "wm-live", noise_std=0.5, amp=0.6, decay=0.3)
    x, draws = 1 + torch.randn(8, 4, dtype=torch.float64), []
    for _ in range(1000):
        layer.zero_grad()
        layer(x).sum().backward()
        draws.append(layer.feedback.grad)
    found = torch.stack(draws)
    error = found.std(0) / len(draws) ** 0.5
    expected = 0.3 * layer.feedback - 0.6 * layer.weight
    assert ((found.mean(0) - expected).abs() < 4.5 * error).all()
    assert (error < 0.2 * expected.abs().mean()).all()


def test_live_mirror_has_the_law_of_a_mirror():
    net, x, target = made("dense", "wm-live", amp=0.6, decay=0.3)
    for name, layer in synapses(net):
        law = error_signals(net, x, target)[name]["law"]
        b = layer.feedback.detach().numpy()
        expected = 0.3 * b - 0.6 * layer.weight.detach().numpy()
        assert abs(law.gradient(b) - expected).max() < 1e-12
        assert law.noise(b, 3).std() > 0.01


@pytest.mark.parametrize("kind", NETWORKS)
def test_node_perturbation_as_written_out(kind, noises):
    net, x, target = made(kind, "np", noise_std=0.05)
    F.cross_entropy(net(x), target).backward()
    count = len([*synapses(net)])
    first, second = noises[:count], noises[count:]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # both passes draw the same
    output, inputs, _ = by_hand(net, x, [])
    moved = by_hand(net, x, first)[0] - output
    (error,) = torch.autograd.grad(F.cross_entropy(output, target), output, retain_graph=True)
    change = (error * moved).sum(1).detach()
    for i, ((_, layer), delta) in enumerate(zip(synapses(net), errors(net, x, target, []), strict=True)):
        estimate = first[i] * change.view(-1, *[1] * (first[i].dim() - 1)) / 0.05**2
        feedback = layer.feedback.detach().clone().requires_grad_()
        descended = (layer.op.adjoint(delta, feedback, inputs[i].detach()) - estimate).square().sum() * len(x) / 2
        descended.backward()
        torch.testing.assert_close(layer.feedback.grad, feedback.grad, rtol=1e-9, atol=1e-11)
        task = layer.op.outer(inputs[i].detach(), delta, layer.weight)
        torch.testing.assert_close(layer.weight.grad, task, rtol=1e-9, atol=1e-11)  # which the noise does not reach


def test_the_change_of_the_loss_is_that_of_a_second_pass(noises, monkeypatch):
    net, x, target = made("dense", "np", noise_std=1e-5)
    seen = []
    original = type(rule("np")).feedback_grad
    monkeypatch.setattr(type(rule("np")), "feedback_grad", lambda self, s: seen.append(s.change) or original(self, s))
    F.cross_entropy(net(x), target).backward()
    before, after = (F.cross_entropy(by_hand(net, x, n)[0], target, reduction="none") for n in ([], noises[:3]))
    for change in seen:
        torch.testing.assert_close(change * len(x), (after - before).detach(), rtol=1e-3, atol=1e-10)


def test_node_perturbation_finds_the_true_error_on_average():
    torch.manual_seed(0)
    net = transport_free(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double(), "np", noise_std=0.1)
    x, target, draws = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 2, []
    for _ in range(1000):
        net.zero_grad()
        F.cross_entropy(net(x), target).backward()
        draws.append(net[1].feedback.grad)
    found = torch.stack(draws)
    signals = error_signals(net, x, target)["1"]
    e = torch.from_numpy(signals["delta_exact"]) * len(x)  # that of each example
    # E[λ̂] = Wᵀ e, so that on average B descends ½ E‖(B − W)ᵀ e‖²
    expected = e.T @ e @ (net[1].feedback - net[1].weight).detach() / len(x)
    error = found.std(0) / len(draws) ** 0.5
    assert ((found.mean(0) - expected).abs() < 4.5 * error).all()
    assert (error < 0.4 * expected.abs().mean()).all()


def test_the_second_pass_changes_nothing_else():
    torch.manual_seed(0)
    native = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3)).double()
    x, target = torch.randn(9, 6, dtype=torch.float64), torch.arange(9) % 3
    found = []
    for std in (1e-6, 2e-6):
        torch.manual_seed(1)
        net = transport_free(native, "np", noise_std=std)
        F.cross_entropy(net(x), target).backward()
        found.append((net[1].running_mean.clone(), int(net[1].num_batches_tracked), net[3].feedback.grad,
                      torch.get_rng_state()))  # fmt: skip
    (mean, count, grad, state), (other_mean, other_count, other_grad, other_state) = found
    expected = nn.BatchNorm1d(5).double()
    expected(native[0](x))
    torch.testing.assert_close(mean, expected.running_mean)
    assert count == other_count == 1
    assert torch.equal(state, other_state)
    assert torch.equal(mean, other_mean)
    # With other dropout in the second pass, the changes would not become smaller with the noise.
    torch.testing.assert_close(grad, other_grad, rtol=1e-3, atol=1e-5)


def test_evaluations_have_no_noise():
    for name in ("np", "wm-live"):
        net, x, _ = made("dense", name)
        with torch.no_grad():
            assert torch.equal(net.eval()(x), revert(net)(x))
            assert torch.equal(net.train()(x), revert(net)(x)) == (name == "np")


def test_what_node_perturbation_cannot_do_is_refused():
    net, x, target = made("dense", "np")
    with pytest.raises(RuntimeError, match="np: the change of the loss never reached a layer; call the converted"):
        F.cross_entropy(net[4](net[3](net[2](net[1](net[0](x))))), target).backward()
    with pytest.raises(InputError, match=r"^compile: np takes a second forward pass"):
        Settings(rule="np", compile=True)
    net = made("dense", "np")[0]
    twin = copy.deepcopy(net)
    F.cross_entropy(twin(x), target).backward()  # a copy has a second pass of its own
    assert twin[0].feedback.grad is not None
    assert net[0].feedback.grad is None

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = dense()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).mean(0)

    with pytest.raises(InputError, match="np: every layer must see the whole batch, and the network must return"):
        transport_free(Mean(), "np")(torch.randn(7, 6))
