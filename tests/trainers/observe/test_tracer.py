"""Signals against written-out backward passes and autograd, and proof that looking changes nothing."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wtdiag.probes import GIVEN
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.observe.attribution import attribution
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import RULES


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(True), nn.Dropout(0.2),
        nn.Conv2d(4, 6, 3), nn.ReLU(True), nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 3),
    ).double()  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize("rule", RULES)
def test_looking_changes_nothing(rule, batch):
    torch.manual_seed(1)
    model = transport_free(network(), rule, sample=batch[0])
    with torch.no_grad():
        model[4].weight.neg_()  # signs that the feedback has not followed yet
    model[4].eval()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    error_signals(model, *batch)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(layer.tracer is None for _, layer in synapses(model))


def test_an_interrupted_look_leaves_no_probe_behind(batch):
    model = transport_free(network(), "fa")
    with pytest.raises(ZeroDivisionError):
        error_signals(model, *batch, loss=lambda output, target: 1 / 0)
    assert all(layer.tracer is None for _, layer in synapses(model))


def test_signals_are_the_written_out_ones(batch):
    torch.manual_seed(2)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    model = transport_free(mlp, "fa")
    x, y = batch
    signals = error_signals(model, x, y)
    layers = dict(synapses(model))
    h1 = torch.tanh(layers["1"](x.flatten(1)))
    h2 = torch.tanh(layers["3"](h1))
    e3 = (torch.softmax(layers["5"](h2), 1) - F.one_hot(y, 3)) / len(y)
    for suffix, pick in (("", lambda layer: layer.feedback), ("_exact", lambda layer: layer.weight)):
        e2 = e3 @ pick(layers["5"]) * (1 - h2**2)
        e1 = e2 @ pick(layers["3"]) * (1 - h1**2)
        for name, expected in (("5", e3), ("3", e2), ("1", e1)):
            found = torch.from_numpy(signals[name]["delta" + suffix]).double()
            torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-7)
    e2 = e3 @ layers["5"].feedback * (1 - h2**2)
    local = torch.from_numpy(signals["3"]["sent_local"]).double()
    torch.testing.assert_close(local, (e2 @ layers["3"].weight).detach(), rtol=1e-5, atol=1e-7)
    assert "sent" not in signals["1"]


class Sequences(nn.Module):
    """A network over (batch, sequence, feature), or with the first two axes swapped, and classes of sequences."""

    def __init__(self, batch_axis):
        super().__init__()
        torch.manual_seed(3)
        self.position = 1 - batch_axis
        self.body = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh()).double()
        self.head = nn.Linear(6, 3).double()

    def forward(self, x):
        return self.head(self.body(x).mean(self.position))


@pytest.mark.parametrize("rule", ["ia", "dfa"])
@pytest.mark.parametrize("known", ["named", "by its size", "not"])
def test_examples_are_found_wherever_their_axis_is(rule, known):
    torch.manual_seed(4)
    x, y = torch.randn(5, 5 if known != "by its size" else 4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    signals = []
    for axis in (0, 1):
        torch.manual_seed(5)
        given = {} if known != "named" else {"batch_axis": axis}
        sample = x[:, :4].movedim(0, axis) if rule == "dfa" else None
        model = transport_free(Sequences(axis), rule, sample=sample, **given)
        signals.append(error_signals(model, x.movedim(0, axis), y))
    for layer, found in signals[0].items():
        other = signals[1][layer]
        assert found["operator"].shape == ((5 if known != "by its size" else 4, 6 if layer == "body.0" else 7)
                                           if layer != "head" else (6,))  # fmt: skip
        for kind, value in found.items():
            if isinstance(value, np.ndarray) and known != "not":
                np.testing.assert_allclose(other[kind], value, rtol=1e-9, atol=1e-12)
        if rule == "ia":
            b = np.random.default_rng(0).standard_normal(found["weight_gradient"].shape)
            noise = [each[layer]["law"].noise(b, 3) for each in signals]
            np.testing.assert_allclose(noise[1], noise[0], rtol=1e-9, atol=1e-12)
            assert np.isfinite(noise[0]).all() == (known != "not" or layer == "head")
            np.testing.assert_allclose(other["law"].gradient(b), found["law"].gradient(b), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", [name for name in RULES if RULES[name].tied])
def test_sign_rules_are_seen_with_the_signs_of_now(rule, batch):
    model = transport_free(network(), rule, sample=batch[0])
    with torch.no_grad():
        model[4].weight.neg_()
    seen = error_signals(model, *batch)["4"]["sent"]
    model[4].rule.tie(model[4].weight.data, model[4].feedback.data)
    assert (seen == error_signals(model, *batch)["4"]["sent"]).all()


@pytest.mark.parametrize("rule", ["fa", "ia", "dfa", "bp"])
def test_delta_is_what_trains_the_layer(rule, batch):
    """The gradient of a layer's bias is the sum of the error that arrives there."""
    torch.manual_seed(3)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    model = transport_free(mlp, rule, sample=batch[0])
    signals = error_signals(model, *batch)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    for name, layer in synapses(model):
        delta = torch.from_numpy(signals[name]["delta"]).view(5, -1).sum(0).double()
        torch.testing.assert_close(delta, layer.bias.grad, rtol=1e-4, atol=1e-7)


def test_a_shared_layer_is_noted_once_per_use(batch):
    shared = nn.Linear(8, 8)
    model = transport_free(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), shared, shared, nn.Linear(8, 3)).double(), "fa"
    )
    signals = error_signals(model, *batch)
    assert signals["2"]["delta"].shape == (2 * 5, 8)


def test_a_shared_convolution_may_see_maps_of_different_size(batch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 1, 3), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(self.conv(self.conv(x)).flatten(1))

    signals = error_signals(transport_free(Twice().double(), "fa"), *batch)
    assert signals["conv"]["delta"].shape == (5, 1, 36 + 16)
    assert "sent" not in signals["conv"]  # the first use sends no error, so the uses cannot be told apart


def test_frozen_layers_are_reached(batch):
    model = transport_free(network(), "fa")
    for p in model.parameters():
        p.requires_grad_(False)
    assert "delta_exact" in error_signals(model, *batch)["0"]


class Residual(nn.Module):
    """Two blocks with a skip, the second one's weights used twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.again, self.norm, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = h + torch.relu(self.norm(self.down(h)))
        h = h + torch.tanh(self.again(h))
        h = h + torch.tanh(self.again(h))
        return self.head(h.mean((2, 3)))


def perceptron():
    sizes = [64, 9, 7, 3]
    layers = [module for a, b in itertools.pairwise(sizes) for module in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(nn.Flatten(), *layers[:-1]).double()


NETWORKS = {"mlp": perceptron, "conv": network, "residual": lambda: Residual().double()}


@pytest.fixture(params=NETWORKS)
def native(request):
    torch.manual_seed(4)
    return NETWORKS[request.param]()


def backward(model, batch, seed=5):
    torch.manual_seed(seed)
    F.cross_entropy(model(batch[0]), batch[1]).backward()


@pytest.mark.parametrize("rule", RULES)
def test_weight_gradients_are_those_of_training_and_of_autograd(rule, native, batch):
    for module in native.modules():
        if isinstance(module, nn.Dropout):
            module.p *= rule != "brsf"  # which draws feedback in between
    model = transport_free(native, rule, sample=batch[0])
    backward(native, batch)
    backward(model, batch)  # first: it may draw feedback anew
    torch.manual_seed(5)
    signals = error_signals(model, *batch)
    for name, layer in synapses(model):
        assert signals[name].keys() <= GIVEN.keys()
        shares = "weight_grad" in layer.rule.shares
        own = layer.rule.decay * layer.weight.detach() if shares else 0.0
        if shares and name == "again":
            own = 2 * own  # once for each use
        expected = (layer.weight.grad - own).numpy(), native.get_submodule(name).weight.grad.numpy()
        for kind, gradient in zip(("weight_gradient", "weight_gradient_exact"), expected, strict=True):
            assert signals[name][kind].dtype == np.float64
            np.testing.assert_allclose(signals[name][kind], gradient, rtol=1e-8, atol=1e-12)


def test_layers_with_the_same_weights_share_a_gradient(batch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
    net[4].weight = net[2].weight
    model = transport_free(net.double(), "fa")
    backward(model, batch)
    signals = error_signals(model, *batch)
    for name in ("2", "4"):
        np.testing.assert_allclose(signals[name]["weight_gradient"], model[2].weight.grad.numpy(), rtol=1e-9)


@pytest.mark.parametrize("rule", ["fa", "usf", "bp", "dfa"])
def test_inputs_and_what_the_weights_make_of_them(rule, native, batch):
    model = transport_free(native, rule, sample=batch[0])
    inputs, outputs = {}, {}
    for name, layer in synapses(model):
        layer.register_forward_pre_hook(lambda _, x, name=name: inputs.setdefault(name, []).append(x[0].detach()))
        layer.register_forward_hook(lambda _, x, y, name=name: outputs.setdefault(name, []).append(y.detach().clone()))
    signals = error_signals(model, *batch)
    for found in (inputs, outputs):  # the halves of the batch pass after the whole of it
        found |= {name: [signal for signal in seen if len(signal) == len(batch[0])] for name, seen in found.items()}
    for name, layer in synapses(model):
        axis = 0 if isinstance(layer, nn.Linear) else 2
        spatial = (1, 1) if axis else ()
        flat = (lambda t, axis=axis: t.flatten(2)) if len(inputs[name]) > 1 else (lambda t: t)
        x, y = (torch.cat([flat(t) for t in found[name]], dim=axis) for found in (inputs, outputs))
        np.testing.assert_array_equal(signals[name]["inputs"], x.numpy())
        bias = 0.0 if layer.bias is None else layer.bias.detach().view(-1, *spatial[: y.dim() - 2])
        np.testing.assert_allclose(signals[name]["forward_projection"], (y - bias).numpy(), rtol=1e-9, atol=1e-12)
        assert ("feedback_projection" in signals[name]) == (rule != "dfa")
        if rule == "bp":
            np.testing.assert_array_equal(signals[name]["feedback_projection"], signals[name]["forward_projection"])
        elif rule != "dfa":
            with torch.no_grad():
                layer.weight.copy_(layer.effective_feedback())
    if rule in ("fa", "usf"):  # with W = B the projections swap
        swapped = error_signals(model, *batch)
        name = next(iter(swapped))
        found, expected = swapped[name]["forward_projection"], signals[name]["feedback_projection"]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", ["fa", "dfa"])
def test_a_layer_that_the_loss_does_not_see_sends_nothing(rule, batch):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.idle, self.head = nn.Linear(64, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            h = torch.tanh(self.body(x.flatten(1)))
            self.idle(h)
            return self.head(h)

    torch.manual_seed(6)
    model = transport_free(Idle().double(), rule, classes=3)
    backward(model, batch)
    signals = error_signals(model, *batch)
    of_the_input = {"inputs", "forward_projection", "operator", "fresh_angles", "entering", "leaving"}
    assert set(signals["idle"]) == of_the_input | ({"feedback_projection"} if rule == "fa" else set())
    np.testing.assert_allclose(signals["body"]["weight_gradient"], model.body.weight.grad.numpy(), rtol=1e-9)


def test_direct_feedback_needs_the_error_of_the_output_itself(batch):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(64, 5), nn.Linear(5, 3)

        def forward(self, x):
            h = self.body(x.flatten(1))
            return self.head(h), self.head(h).sum()

    model = transport_free(Two().double(), "dfa", classes=3)
    with pytest.raises(RuntimeError, match="dfa: the output error never reached a layer"):
        error_signals(model, *batch, loss=lambda outputs, target: outputs[1])


def test_float32_networks_give_float32(batch):
    model = transport_free(network().float(), "fa", sample=batch[0].float())
    signals = error_signals(model, batch[0].float(), batch[1])
    kinds = {value.dtype for found in signals.values() for value in found.values() if isinstance(value, np.ndarray)}
    assert kinds == {np.dtype(np.float32)}


@pytest.mark.parametrize("rule", ["fa", "kp"])
def test_checkpoints_run_a_layer_twice_but_it_is_used_once(rule, batch):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.head = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = torch.tanh(self.one(x.flatten(1)))
            return self.head(checkpoint(lambda h: torch.tanh(self.two(h)), h, use_reentrant=False))

    torch.manual_seed(7)
    model = transport_free(Checkpointed().double(), rule)
    plain = nn.Sequential(nn.Flatten(), model.one, nn.Tanh(), model.two, nn.Tanh(), model.head)
    signals, expected = error_signals(model, *batch), error_signals(plain, *batch)
    for name, twin in (("one", "1"), ("two", "3"), ("head", "5")):
        for kind in ("delta", "delta_exact", "weight_gradient", "inputs"):
            np.testing.assert_allclose(signals[name][kind], expected[twin][kind], rtol=1e-12)
    costs = [list(attribution(network, *batch).values()) for network in (model, plain)]
    np.testing.assert_allclose(*costs, rtol=1e-9)
