"""Conversion of any module: which parameters are feedback, and what stays as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.trainers.layers.mixed_network import small, train_step
from wtdiag.trainers.layers.convert import feedback_parameters, synapses, transport_free
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.factored import Factored


@pytest.mark.parametrize("name", RULES)
def test_feedback_parameters_are_those_of_every_layer_by_name(name):
    net = transport_free(small(), name)
    found = feedback_parameters(net)
    own = [] if name == "bp" else ["feedback_left", "feedback_right"] if name in FACTORED else ["feedback"]
    assert list(found) == [f"{layer}.{key}" for layer in (0, 3, 5) for key in own]
    assert all(found[key] is dict(net.named_parameters())[key] for key in found)
    used = {id(p) for _, layer in synapses(net) for p in layer.parameters_of("feedback")}
    assert name == "bp" or {id(p) for p in found.values()} == used
    assert list(feedback_parameters(nn.DataParallel(net))) == [f"module.{key}" for key in found]


def test_feedback_parameters_that_are_shared_or_pruned():
    native = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    native[2].weight = native[0].weight
    native[1].register_parameter("feedback_of_mine", nn.Parameter(torch.ones(3)))
    net = transport_free(native, "kp")
    prune.l1_unstructured(net[1], "feedback", 0.5)
    prune.l1_unstructured(net[1], "weight", 0.5)
    assert list(feedback_parameters(net)) == ["0.feedback", "1.feedback_orig"]


@pytest.mark.parametrize("name", RULES)
def test_outputs_weights_and_keys_stay(name):
    native, x = small(), torch.randn(2, 3, 4, 4)
    before = copy.deepcopy(native.state_dict())
    net = transport_free(native, name, sample=x)
    assert torch.equal(net.eval()(x), native.eval()(x))
    state = net.state_dict()
    assert [key for key in state if "feedback" not in key] == list(before)
    assert all(torch.equal(state[key], before[key]) for key in before)
    assert {key.split("_")[0] for key in state if "feedback" in key} == {"0.feedback", "3.feedback", "5.feedback"}
    for _, layer in synapses(net):
        if not issubclass(RULES[name], Direct):
            assert layer.feedback.shape == layer.weight.shape
        assert layer.learned_feedback.requires_grad is (RULES[name].learned or name == "bp")
        assert layer.feedback.dtype == layer.weight.dtype


@pytest.mark.parametrize("name", RULES)
def test_the_original_is_untouched(name):
    native, x = small(), torch.randn(2, 3, 4, 4)
    twin = copy.deepcopy(native)
    types = [type(module) for module in native.modules()]
    net = transport_free(native, name)
    train_step(net, x)
    assert [type(module) for module in native.modules()] == types
    assert all(torch.equal(a, b) for a, b in zip(native.state_dict().values(), twin.state_dict().values(), strict=True))
    assert all(p.grad is None for p in native.parameters())
    assert native[2].inplace
    assert not native._forward_hooks
    assert not {p.data_ptr() for p in native.parameters()} & {p.data_ptr() for p in net.parameters()}


def test_pretrained_weights_load_into_the_converted_network():
    net = transport_free(small(), "fa")
    torch.manual_seed(9)
    other = small()
    for p in other.parameters():
        p.data.normal_()
    feedback = net[0].feedback.clone()
    missing, unexpected = net.load_state_dict(other.state_dict(), strict=False)
    assert missing == ["0.feedback", "3.feedback", "5.feedback"]
    assert unexpected == []
    assert torch.equal(net[0].weight, other[0].weight)
    assert torch.equal(net[0].feedback, feedback)


def test_sign_rules_follow_loaded_weights_at_the_next_pass():
    net, other = transport_free(small(), "usf"), small()
    other[0].weight.data.normal_()
    net.load_state_dict(other.state_dict(), strict=False)
    train_step(net, torch.randn(2, 3, 4, 4))
    assert torch.equal(net[0].feedback.sign(), other[0].weight.sign())


def test_hooks_stay_and_run():
    seen = []
    native = small()
    native[0].register_forward_hook(lambda module, args, output: seen.append("forward"))
    native[0].register_forward_pre_hook(lambda module, args: seen.append("pre"))
    native[5].register_full_backward_hook(lambda module, grads_in, grads_out: seen.append("backward"))
    native[0].weight.register_hook(lambda grad: grad * 0)
    train_step(transport_free(native, "ia"), torch.randn(2, 3, 4, 4))
    assert seen == ["pre", "forward", "backward"]


def test_device_dtype_and_frozen_weights_stay():
    native = small().to(torch.bfloat16)
    native[0].weight.requires_grad_(False)
    net = transport_free(native, "ia")
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}
    assert not net[0].weight.requires_grad
    assert net[0].feedback.requires_grad
    shape = transport_free(nn.Linear(3, 2, device="meta"), "kp").feedback
    assert shape.is_meta


@pytest.mark.parametrize("name", ["fa", "kp", "dfa"])
def test_a_shared_module_stays_one(name):
    shared = nn.Linear(4, 4)
    net = transport_free(nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 3)), name)
    assert net[0] is net[2]
    assert [key for key, _ in synapses(net)] == ["0", "3"]
    train_step(net, torch.randn(5, 4))


@pytest.mark.parametrize("name", ["bp", "usf", "ia"])
def test_tied_parameters_stay_tied_and_share_their_feedback(name):
    native = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    native[2].weight = native[0].weight
    net = transport_free(native, name)
    assert net[2].weight is net[0].weight
    assert net[2].feedback is net[0].feedback
    assert net[1].feedback is not net[0].feedback
    train_step(net, torch.randn(5, 4))


def test_weights_tied_to_an_embedding_stay_tied():
    class Language(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.body(self.embed(tokens)))

    net = transport_free(Language(), "kp")
    assert net.head.weight is net.embed.weight
    net(torch.tensor([[1, 2, 3]])).square().mean().backward()
    assert net.embed.weight.grad is not None
    assert net.head.feedback.grad.shape == (7, 4)


FACTORED = [name for name in RULES if issubclass(RULES[name], Factored)]
