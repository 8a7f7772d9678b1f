"""What a sample of inputs tells of a network, and what is refused in one clear line."""

import types

import pytest
import torch
from torch import nn

from tests.trainers.layers.mixed_network import small, train_step
from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.layers.place import in_forward_order
from wtdiag.trainers.rules import RULES, rule
from wtdiag.trainers.rules.direct import Direct


def test_a_model_that_cannot_be_copied_says_so():
    native = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    native.made = types.SimpleNamespace(weight=native[0].weight * 2)
    with pytest.raises(InputError, match=r"^transport_free: Sequential cannot be copied: .*deepcopy"):
        transport_free(native, "fa")


def test_a_first_layer_is_marked_as_carrying_no_error():
    net, x = transport_free(small(), "fa"), torch.randn(2, 3, 4, 4)
    train_step(net, x)
    marks = [False, True, True]
    assert [layer.carries_error for _, layer in synapses(net)] == marks
    with torch.no_grad():  # an evaluation says nothing about errors
        net(x)
    assert [layer.carries_error for _, layer in synapses(net)] == marks
    train_step(net, x.requires_grad_())
    assert [layer.carries_error for _, layer in synapses(net)] == [True, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((small(), "faa"), r"^rule: 'faa' is not known; did you mean 'fa'\?"),
        ((small(), 3), r"^transport_free: rule must be a name or a Rule object, got 3$"),
        ((small(), RULES["fa"]), r"^transport_free: rule must be a name or a Rule object, got <class"),
        (("small", "fa"), r"^transport_free: model must be a torch.nn.Module, got str$"),
        (
            (nn.Sequential(nn.ReLU()), "fa"),
            r"^transport_free: Sequential has no layer to convert; known: .*Linear.*Conv1d",
        ),
        ((transport_free(small(), "fa"), "ia"), r"^transport_free: the model is converted already"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        transport_free(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": rule("fa"), "scale": 2.0}, r"^transport_free: coefficients scale need the rule's name"),
        ({"rule": "dfa", "classes": 0}, r"^transport_free: classes must be a positive whole number, got 0$"),
        ({"rule": "dfa", "classes": 2.5}, r"^transport_free: classes must be a positive whole number, got 2.5$"),
        ({"rule": "ia", "ampp": 2.0}, r"^coefficient of ia: 'ampp' is not known; did you mean 'amp'\?"),
        ({"rule": "ia", "amp": "x"}, r"^ia: amp: expected a finite number, got 'x'$"),
        ({"rule": "fa", "sample": 3}, r"^transport_free: sample must be a batch of inputs, got int$"),
        ({"rule": "fa", "sample": {}}, r"^transport_free: sample must be a batch of inputs, got dict$"),
        (
            {"rule": "fa", "sample": torch.ones(2, 99)},
            r"^transport_free: sample: the network cannot take it \(RuntimeErr",
        ),
        (
            {"rule": "fa", "sample": {"z": torch.ones(2)}},
            r"^transport_free: sample: the network cannot take it \(TypeErr",
        ),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        transport_free(small(), **options)


@pytest.mark.parametrize("name", ["fa", "dfa"])
def test_a_sample_may_hold_inputs_by_name(name):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, words, mask):
            return {"logits": self.head(torch.tanh(self.body(words * mask)).mean(1))}

    torch.manual_seed(0)
    sample = {"words": torch.randn(7, 6, 4), "mask": torch.ones(7, 6, 1)}
    net = transport_free(Named(), name, sample=sample)
    assert [layer.carries_error for _, layer in synapses(net)] == [False, True]
    net(**sample)["logits"].sum().backward()
    assert net.body.weight.grad.norm() > 0


@pytest.mark.parametrize("options", [{}, {"centre": "batch"}, {"centre": "examples"}])
@pytest.mark.parametrize("name", [name for name in RULES if not issubclass(RULES[name], Direct)])
def test_an_input_without_a_batch_is_one_example(name, options):
    try:
        rule(name, **options)
    except InputError:
        pytest.skip("it has no such option")
    found = []
    for x in (torch.linspace(-1, 1, 4), torch.linspace(-1, 1, 4)[None]):
        torch.manual_seed(0)
        net = transport_free(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), name, **options)
        torch.manual_seed(1)
        net(x).square().sum().backward()
        found.append({key: p.grad for key, p in net.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*found)


class HeadFirst(nn.Module):
    """Declares its layers in another order than it uses them."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(5, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x).relu())


@pytest.mark.parametrize("rule", ["fa", "dfa"])
def test_layers_are_ordered_as_they_run(rule):
    model = transport_free(HeadFirst(), rule, sample=torch.zeros(2, 4))
    assert [name for name, _ in in_forward_order(synapses(model))] == ["body", "head"]
    assert not model.body.carries_error
    assert model.head.carries_error
    if rule == "dfa":
        assert model.head.feedback.shape == (3, 5)
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())
