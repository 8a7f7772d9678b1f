"""Coefficients of rules: what is refused, and what changes while a network trains."""

import dataclasses
import math

import pytest
import torch

from tests.trainers.rules.networks import build, gradients, network, same, step
from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import set_rule, synapses
from wtdiag.trainers.rules import RULES, rule


@pytest.mark.parametrize(
    ("name", "coefficients", "message"),
    [
        ("faa", {}, r"^rule: 'faa' is not known; did you mean 'fa'\? Choices: bp, .*wm-reg$"),
        ("ia", {"amb": 1.0}, r"^coefficient of ia: 'amb' is not known; did you mean 'amp'\? Choices: .*null"),
        ("ia", {"sparse": 1.0}, r"^coefficient of ia: 'sparse' is not known"),
        ("bp", {"decay": 1.0}, r"^bp: has no coefficients, got 'decay'$"),
        ("ia", {"amp": "1"}, r"^ia: amp: expected a finite number, got '1'$"),
        ("ia", {"null": math.nan}, r"^ia: null: expected a finite number, got nan$"),
        ("kp", {"decay": None}, r"^kp: decay: expected a finite number, got None$"),
        ("kp", {"decay": True}, r"^kp: decay: expected a finite number, got True$"),
        ("fa", {"scale": 0}, r"^fa: scale: expected a positive number, got 0$"),
        ("fa", {"soft": 1.5}, r"^fa: soft: expected a number from 0 to 1, got 1.5$"),
        ("fa", {"soft": math.nan}, r"^fa: soft: expected a finite number, got nan$"),
        ("dfa", {"scale": -1.0}, r"^dfa: scale: expected a positive number, got -1.0$"),
        ("wm", {"noise_std": math.inf}, r"^wm: noise_std: expected a finite number, got inf$"),
        ("wm", {"noise": "gauss"}, r"^wm: noise: 'gauss' is not known. Choices: normal, uniform$"),
        ("aa", {"inputs": "noises"}, r"^aa: inputs: 'noises' is not known; did you mean 'noise'\?"),
        ("aa", {"reduction": "max"}, r"^aa: reduction: 'max' is not known. Choices: mean, sum$"),
    ],
)
def test_wrong_coefficients_are_named(name, coefficients, message):
    with pytest.raises(InputError, match=message):
        rule(name, **coefficients)


@pytest.mark.parametrize("name", RULES)
def test_every_coefficient_says_what_it_means(name):
    assert all(field.metadata["about"] for field in dataclasses.fields(RULES[name]))


def test_set_rule_changes_coefficients_and_keeps_feedback():
    net, x, target = network("conv", "sum", amp=0.0, null=0.0, sparse=0.0, self=0.0, decay=0.2)
    step(net, x, target)
    before = [layer.feedback.clone() for _, layer in synapses(net)]
    net.zero_grad()
    set_rule(net, build("sum", amp=0.5))  # from now on outputs are read, which in-place activations overwrote
    step(net, x, target)
    assert all(torch.equal(layer.feedback, b) for (_, layer), b in zip(synapses(net), before, strict=True))
    fresh, x, target = network("conv", "sum", amp=0.5)
    fresh.load_state_dict(net.state_dict())
    step(fresh, x, target)
    assert same(gradients(net, "feedback"), gradients(fresh, "feedback"))


def test_set_rule_refuses_another_rule():
    net, _, _ = network("dense", "ia")
    with pytest.raises(InputError, match=r"^set_rule: the model learns by ia, not sa"):
        set_rule(net, rule("sa"))
