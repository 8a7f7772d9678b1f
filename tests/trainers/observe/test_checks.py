"""What the checks of a diagnosis read from a network: blocks, halves of the batch, fresh feedback."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag.trainers import models
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.observe.blocks import blocks
from wtdiag.trainers.observe.fresh import DRAWS, drawn
from wtdiag.trainers.observe.tracer import error_signals

BATCH = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double(), torch.arange(12) % 3


def network(name, rule, **options):
    torch.manual_seed(0)
    model = models.build(name, classes=3, shape=(1, 8, 8), **options)
    sample = BATCH[0].float() if rule == "dfa" else None
    return transport_free(model, rule, sample=sample).double()


def rms(tensor):
    return float(tensor.detach().double().square().mean().sqrt())


def test_a_residual_block_ends_in_its_last_layer():
    model = network("resnet8", "fa")
    seen = []  # the whole batch passes first
    model.layer2[0].register_forward_hook(lambda module, args, out: seen.append((rms(args[0]), rms(out))))
    signals = error_signals(model, *BATCH)
    assert "entering" not in signals["layer2.0.conv1"]
    ends = signals["layer2.0.conv2"]
    assert np.sqrt(np.mean(ends["entering"] ** 2)) == pytest.approx(seen[0][0])
    assert np.sqrt(np.mean(ends["leaving"] ** 2)) == pytest.approx(seen[0][1])
    np.testing.assert_array_equal(signals["conv1"]["leaving"], signals["layer1.0.conv1"]["inputs"])


def test_a_chain_has_no_blocks_and_counts_from_layer_to_layer():
    model = network("mlp", "fa", depth=3)
    assert blocks(model) == {}
    signals = error_signals(model, *BATCH)
    np.testing.assert_array_equal(signals["fc1"]["leaving"], signals["fc2"]["inputs"])
    assert "entering" not in signals["fc3"]


def test_a_transformer_block_ends_in_its_perceptron():
    model = network("transformer", "fa")
    signals = error_signals(model, *BATCH)
    assert [name for name in signals if "entering" in signals[name]] == [
        "embed", "encoder.layers.0.linear2", "encoder.layers.1.linear2"
    ]  # fmt: skip


@pytest.mark.parametrize("rule", ["bp", "fa", "dfa"])
def test_halves_are_batches_of_their_own(rule):
    model = network("conv", rule, depth=4)
    signals = error_signals(model, *BATCH)
    for start, name in ((0, "half_gradient"), (1, "other_half_gradient")):
        half = error_signals(model, BATCH[0][start::2], BATCH[1][start::2])
        for layer in signals:
            for end in ("", "_exact"):
                np.testing.assert_allclose(signals[layer][name + end], half[layer][f"weight_gradient{end}"], rtol=1e-10)


def test_sequences_are_halved_along_their_examples():
    torch.manual_seed(0)
    model = transport_free(nn.Sequential(nn.Linear(4, 5), Last(), nn.Linear(5, 3)), "fa", batch_axis=1).double()
    x = torch.randn(7, 12, 4).double()
    signals = error_signals(model, x, BATCH[1])
    half = error_signals(model, x[:, ::2], BATCH[1][::2])
    np.testing.assert_allclose(signals["0"]["half_gradient"], half["0"]["weight_gradient"], rtol=1e-10)


class Last(nn.Module):
    def forward(self, x):
        return x.tanh()[-1]


def test_too_few_examples_are_not_halved():
    signals = error_signals(network("mlp", "fa", depth=2), BATCH[0][:3], BATCH[1][:3])
    assert "half_gradient" not in signals["fc1"]


@pytest.mark.parametrize("rule", ["bp", "fa", "dfa", "ia"])
def test_fresh_angles_are_those_of_a_network_with_that_feedback(rule):
    """Against a network by plain autograd whose errors go through the drawn matrices."""
    model = network("mlp", rule, depth=4)
    found = error_signals(model, *BATCH)["fc2"]["fresh_angles"]()
    layers = [layer for _, layer in synapses(model)]
    by_name = dict(synapses(model))
    for draw in range(DRAWS):
        fresh = {name: drawn(layers, draw)[layer] for name, layer in by_name.items()}
        other = network("mlp", "dfa" if rule == "dfa" else "fa", depth=4)
        other.load_state_dict({k: v for k, v in model.state_dict().items() if "feedback" not in k}, strict=False)
        for name, layer in synapses(other):
            layer.feedback.data.copy_(fresh[name])
        signals = error_signals(other, *BATCH)["fc2"]
        for kind, first, second in (
            ("error_angle", "delta", "delta_exact"),
            ("error_angle_local", "sent", "sent_local"),
            ("error_angle_inherited", "sent_local", "sent_exact"),
            ("error_angle_total", "sent", "sent_exact"),
            ("weight_gradient_angle", "weight_gradient", "weight_gradient_exact"),
        ):
            a, b = signals[first].ravel(), signals[second].ravel()
            angle = math.degrees(math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
            assert found[kind][draw] == pytest.approx(angle, abs=1e-6), kind


def test_fresh_feedback_has_the_norm_of_what_it_replaces_and_leaves_exact_layers():
    model = network("mlp", "fa", depth=3)
    layers = [layer for _, layer in synapses(model)]
    matrices = drawn(layers, 0)
    assert all(float(matrices[layer].norm()) == pytest.approx(float(layer.feedback.norm())) for layer in layers)
    assert not torch.equal(matrices[layers[1]], drawn(layers, 1)[layers[1]])
    mixed = [
        *transport_free(nn.Sequential(nn.Linear(4, 4)), "fa"),
        *transport_free(nn.Sequential(nn.Linear(4, 3)), "bp"),
    ]
    assert list(drawn(mixed, 0)) == [mixed[0]]


def test_measuring_fresh_angles_leaves_the_network_as_it_was():
    model = network("resnet8", "brsf")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    error_signals(model, *BATCH, loss=F.cross_entropy)["fc"]["fresh_angles"]()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
