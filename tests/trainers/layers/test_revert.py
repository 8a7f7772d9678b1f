"""The way back to PyTorch's own layers, and the groups of one optimiser."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.layers.optimizer_groups import parameter_groups
from wtdiag.trainers.layers.revert import revert
from wtdiag.trainers.rules import RULES

X = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(5) % 3


def network():
    torch.manual_seed(0)
    body = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 8), nn.Tanh()
    return nn.Sequential(*body, nn.Linear(8, 3)).double()


def gradients(model):
    F.cross_entropy(model(X), Y).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", RULES)
def test_a_reverted_network_is_the_original_again(name):
    original = network()
    back = revert(transport_free(original, name, sample=X))
    assert [type(module) for module in back.modules()] == [type(module) for module in original.modules()]
    assert str(back) == str(original)
    torch.testing.assert_close(back.state_dict(), original.state_dict())
    torch.testing.assert_close(gradients(back), gradients(original), rtol=0, atol=0)


def test_a_trained_network_keeps_its_weights_and_the_converted_one_stays():
    model = transport_free(network(), "ia")
    optimizer = torch.optim.SGD(parameter_groups(model, lr=0.1, feedback_lr=0.5))
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    back = revert(model)
    network().load_state_dict(back.state_dict())
    assert torch.equal(model.eval()(X), back.eval()(X))
    assert "rule=ia" in str(model)


def test_parametrized_and_tied_weights_are_reverted_too():
    model = transport_free(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)), "fa")
    parametrizations.orthogonal(model[0])
    x = torch.randn(2, 6)
    back = revert(model)
    assert isinstance(back[0], nn.Linear)
    assert "wtdiag" not in str(type(back[0]).__mro__)
    assert torch.equal(back(x), model(x))

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(5, 4), nn.Linear(4, 5)
            self.head.weight = self.words.weight

        def forward(self, tokens):
            return self.head(self.words(tokens))

    back = revert(transport_free(Tied(), "kp"))
    assert [type(each) for each in back.children()] == [nn.Embedding, nn.Linear]
    assert back.head.weight is back.words.weight
    back(torch.arange(3)).sum().backward()


def test_what_cannot_be_reverted_is_refused():
    with pytest.raises(InputError, match=r"^revert: the model is not converted$"):
        revert(network())
    with pytest.raises(InputError, match=r"^model: expected a torch\.nn\.Module, got int$"):
        revert(3)
    model = transport_free(network(), "fa")
    prune.random_unstructured(model[4], "feedback", 0.5)
    with pytest.raises(InputError, match=r"^revert: the feedback of 4 is computed"):
        revert(model)


@pytest.mark.parametrize("name", ["bp", "ia"])
def test_a_model_is_saved_by_safetensors_whole_or_without_its_feedback(name, tmp_path):
    torch_files = pytest.importorskip("safetensors.torch")
    model, whole, plain = transport_free(network(), name).eval(), tmp_path / "whole", tmp_path / "plain"
    torch_files.save_model(model, str(whole))
    other = transport_free(network(), name).eval()
    for each in other.parameters():
        nn.init.zeros_(each)
    torch_files.load_model(other, str(whole))
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch_files.save_file(revert(model).state_dict(), str(plain))
    network().load_state_dict(torch_files.load_file(str(plain)))


@pytest.mark.parametrize("name", RULES)
def test_groups_hold_all_that_learns_once(name):
    model = transport_free(network(), name, sample=X)
    alone = RULES[name].learned and RULES[name].recipe.optimizer != "forward"
    groups = parameter_groups(model, lr=0.1, **({"feedback_lr": 0.01} if alone else {}))
    assert [group["name"] for group in groups] == ["forward", "feedback"][: 1 + alone]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    fixed = [p.clone() for p in model.parameters() if not p.requires_grad]
    weights = [layer.weight.clone() for layer in (model[0], model[4], model[6])]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    F.cross_entropy(model(X), Y).backward()
    optimizer.step()
    assert not any(map(torch.equal, weights, [layer.weight for layer in (model[0], model[4], model[6])]))
    if name not in ("usf", "brsf", "frsf"):  # their feedback follows the signs of W
        assert all(map(torch.equal, fixed, [p for p in model.parameters() if not p.requires_grad]))


def test_groups_ask_for_the_rate_that_a_rule_needs_and_no_other():
    with pytest.raises(InputError, match=r"^feedback_lr: the feedback of ia learns .*adam at 0\.005$"):
        parameter_groups(transport_free(network(), "ia"), lr=0.1)
    for name in ("fa", "kp", "bp"):
        with pytest.raises(InputError, match=rf"^feedback_lr: no feedback of {name} learns at a rate of its own$"):
            parameter_groups(transport_free(network(), name), lr=0.1, feedback_lr=0.1)
    with pytest.raises(InputError, match=r"^parameter_groups: the model is not converted"):
        parameter_groups(network(), lr=0.1)
