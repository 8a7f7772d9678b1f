"""The FLOPs that each rule declares are those that its step executes, on a dense and on a convolutional network."""

import copy

import pytest
import torch
from torch import nn

from bench.speed.flops import step_flops
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.rules import RULES, rule

DECLARED = [name for name, each in RULES.items() if each.flops]
DENSE = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10)), torch.randn(64, 24)
CONV = (
    nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    ),
    torch.randn(16, 4, 6, 6),
)  # fmt: skip
# Of each layer: outputs, channels of its input, values of a kernel, positions.
SIZES = {"dense": [(16, 24, 1, 1), (10, 16, 1, 1)], "conv": [(6, 4, 9, 36), (8, 6, 9, 36), (10, 8, 1, 1)]}
BACKPROP = 3  # passes of two FLOPs for each multiplication


def declared(of, layers, examples):
    """Return the FLOPs of all layers by the formula of a rule."""
    total = 0.0
    for out, channels, kernel, positions in layers:
        fan = channels * kernel
        size = {"out": out, "fan": fan, "n": examples * positions, "c": 10, "w": out * fan * positions}
        size |= {"i": channels * positions, "m": of.middle(out) if hasattr(of, "middle") else 0}
        total += BACKPROP * 2 * examples * size["w"] * eval(of.flops, {"min": min}, size)
    return total


def test_the_rules_that_come_with_wtdiag_declare_their_flops():
    assert {"bp", "fa", "usf", "dfa", "kp", "wm", "wm-reg", "ia", "sa", "aa", "pfa", "ldfa", "dkp", "ldrl"} <= {
        *DECLARED
    }


@pytest.mark.parametrize("kind", ["dense", "conv"])
@pytest.mark.parametrize("name", DECLARED)
def test_a_step_costs_what_its_rule_declares(name, kind):
    model, x = DENSE if kind == "dense" else CONV
    of = rule(name, rank=3) if name == "ldfa" else rule(name)
    converted = transport_free(model, of, sample=x)
    assert step_flops(converted, x, to_input=True) == pytest.approx(declared(of, SIZES[kind], len(x)), rel=1e-9)


def test_the_lowest_layer_sends_no_error_down_in_training():
    model, x = DENSE
    flops = step_flops(copy.deepcopy(model), x, to_input=True)
    assert flops == 3 * 2 * 64 * (24 * 16 + 16 * 10)
    assert step_flops(copy.deepcopy(model), x) == flops - 2 * 64 * 24 * 16
