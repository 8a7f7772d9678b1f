"""Rules whose feedback follows the signs of W."""

import pytest
import torch

from tests.trainers.rules.networks import TIED, change_weights, network, step
from wtdiag.trainers.conformance.subject import NETWORKS
from wtdiag.trainers.layers.convert import synapses


@pytest.mark.parametrize("name", ["usf", "frsf"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_sign_rules_take_only_signs(name, kind):
    net, _, _ = network(kind, name)
    for _, layer in synapses(net):
        before = layer.feedback.clone()
        assert torch.equal(layer.feedback.sign(), layer.weight.sign())
        layer.weight.data.mul_(torch.rand_like(layer.weight) + 0.1)
        layer.refresh()
        assert torch.equal(layer.feedback, before)
        flip = torch.rand_like(layer.weight) < 0.5
        layer.weight.data[flip] *= -1
        layer.refresh()
        assert torch.equal(layer.feedback, torch.where(flip, -before, before))


@pytest.mark.parametrize("name", TIED)
def test_sign_rules_follow_the_weights_at_each_pass(name):
    net, x, target = network("conv", name)
    change_weights(net)
    step(net, x, target)
    drawn = [layer.feedback.clone() for _, layer in synapses(net)]
    for _, layer in synapses(net):
        assert torch.equal(layer.feedback.sign(), layer.weight.sign())
    step(net, x, target, seed=2)
    fresh = [not torch.equal(layer.feedback, b) for (_, layer), b in zip(synapses(net), drawn, strict=True)]
    assert all(fresh) if name == "brsf" else not any(fresh)


@pytest.mark.parametrize("name", TIED)
def test_magnitudes_outlive_a_weight_of_zero(name):
    net, x, target = network("dense", name)
    layer = net[2]
    layer.weight.data.zero_()
    step(net, x, target)
    assert layer.feedback.abs().min() > 0


def test_uniform_signs_have_the_he_deviation():
    net, _, _ = network("conv", "usf", scale=0.5)
    for module, fan_in in ((net[0], 2 * 9), (net[2], 2 * 4), (net[5], 4 * 4), (net[7], 48)):
        torch.testing.assert_close(module.feedback.abs(), torch.full_like(module.weight, 0.5 * (2 / fan_in) ** 0.5))


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", ["usf", "frsf"])
def test_magnitudes_survive_weight_decay(name, kind):
    net, x, target = network(kind, name)
    before = {key: layer.feedback.abs() for key, layer in synapses(net)}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.5)
    for seed in range(3):
        step(net, x, target, seed)
        optimizer.step()
    for key, layer in synapses(net):
        assert torch.equal(layer.feedback.abs(), before[key])
