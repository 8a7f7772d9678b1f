"""What every rule of the registry must do."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trainers.rules.networks import (
    DIRECT,
    FACTORED,
    LEARNED,
    PERTURBED,
    SHARING,
    TIED,
    build,
    change_weights,
    close,
    gradients,
    network,
    same,
    step,
)
from wtdiag.trainers.conformance.subject import NETWORKS
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.rules import RULES


def test_all_rules_of_the_toolkit_are_registered():
    assert next(iter(RULES)) == "bp"
    known = "bp brsf dfa drtp fa frsf usf aa ia kp sa sum wm wm-reg"
    assert set(known.split()) <= set(RULES)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", LEARNED)
def test_what_learns_reads_the_weights_only_where_the_rule_says_so(name, kind):
    net, x, target = network(kind, name)
    other = copy.deepcopy(net)
    losses = []
    for each in (net, other):
        torch.manual_seed(1)
        losses.append(F.cross_entropy(each(x), target))
    before = {key: layer.weight.detach().clone() for key, layer in synapses(other)}
    change_weights(other)
    for loss in losses:
        torch.manual_seed(2)
        loss.backward()
    weights = gradients(other, "weight")
    if name in SHARING:  # its own decay of W is all that may have changed
        for key, layer in synapses(other):
            change = layer.rule.decay * (layer.weight.detach() - before[key])
            torch.testing.assert_close(weights[f"{key}.weight"] - change, net.get_submodule(key).weight.grad)
    else:
        assert same(gradients(net, "weight"), weights)
    reads_weight = name in ("sa", "wm", "ldrl", "sum")
    assert same(gradients(net, "feedback"), gradients(other, "feedback")) is not reads_weight


@pytest.mark.parametrize("name", [name for name in RULES if not RULES[name].transports and name != "usf"])
def test_random_feedback_has_the_stated_deviation(name):
    torch.manual_seed(0)
    net = transport_free(nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 50)), build(name, scale=2.0))
    stated = 2.0 / 50**0.5 if name in DIRECT else 2.0 * (2 / 300) ** 0.5
    if name == "ldfa":
        stated *= (net[0].rule.rank / 200) ** 0.5  # the rank over the outputs
    feedback = net[0].feedback.detach().double()
    n = feedback.numel() if name not in FACTORED else net[0].feedback_left.numel()
    assert abs(feedback.square().mean() / stated**2 - 1) < 5 * (2 / n) ** 0.5
    if name not in TIED:
        assert abs(feedback.mean() / stated) < 5 / n**0.5
    # Feedback is drawn apart from the weights: two random matrices of n entries are at right angles.
    if name not in (*TIED, *DIRECT):
        cosine = F.cosine_similarity(feedback.flatten(), net[0].weight.double().flatten(), dim=0)
        assert abs(cosine) < 5 / n**0.5


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("soft", [0.0, 0.3, 0.8, 1.0])
def test_soft_feedback_begins_as_the_mix_that_its_equation_says_and_stays(kind, soft):
    plain, x, target = network(kind, "fa")
    net, _, _ = network(kind, "fa", soft=soft)
    begun = {key: layer.feedback.clone() for key, layer in synapses(net)}
    for key, layer in synapses(plain):
        assert torch.equal(layer.weight, net.get_submodule(key).weight)
        close(begun[key], soft * layer.weight.detach() + (1 - soft**2) ** 0.5 * layer.feedback)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step(net, x, target)
    optimizer.step()
    for key, layer in synapses(net):
        assert torch.equal(layer.feedback, begun[key])


class Saved:
    """Storages that autograd holds between forward and backward."""

    def __init__(self) -> None:
        self.storages: dict[int, int] = {}

    def __enter__(self) -> "Saved":
        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)


@pytest.mark.parametrize("name", [name for name in RULES if name not in PERTURBED])  # which hold their noise
def test_no_more_activations_are_held_than_by_backprop(name):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(3)]
    native = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(8, 4, 9, 9)
    net = transport_free(native, build(name), sample=x)
    held = []
    for each in (native, net):
        with Saved() as saved:
            each(x)
        mine = {p.untyped_storage().data_ptr() for p in each.parameters()}
        held.append(sum(size for pointer, size in saved.storages.items() if pointer not in mine))
    logits = 8 * 3 * 4  # a rule that reads outputs holds the last layer's too, which nothing else does
    assert held[1] <= held[0] + logits


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", RULES)
def test_an_empty_batch_asks_nothing_of_the_weights(name, kind):
    net, x, target = network(kind, name)
    step(net.eval(), x[:0], target[:0])
    for _, layer in synapses(net):
        decay = layer.rule.decay if name in SHARING else 0.0
        close(layer.weight.grad, decay * layer.weight.detach())
        assert not layer.rule.learned or layer.learned_feedback.grad.isfinite().all()
