"""Error signals against written-out backward passes, and proof that looking changes nothing."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainers.convert import synapses, transport_free
from trainers.rules import RULES
from trainers.signals import error_signals


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
    assert all(layer.probe is None for _, layer in synapses(model))


def test_an_interrupted_look_leaves_no_probe_behind(batch):
    model = transport_free(network(), "fa")
    with pytest.raises(ZeroDivisionError):
        error_signals(model, *batch, loss=lambda output, target: 1 / 0)
    assert all(layer.probe is None for _, layer in synapses(model))


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


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf"])
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
