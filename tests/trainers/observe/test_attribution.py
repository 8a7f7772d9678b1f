"""The cost of each layer's feedback against twin networks whose upper layers carry error exactly."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag.trainers.layers.convert import feedback_parameters, synapses, transport_free
from wtdiag.trainers.observe.attribution import attribution
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules.direct import Direct


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.drop, self.head = nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Linear(4, 3)
        self.layers = [self.stem, self.body, self.head]

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = h + torch.relu(self.norm(self.body(h)))
        return self.head(self.drop(h.mean((2, 3))))


def perceptron():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), nn.Tanh(), nn.Linear(9, 7), nn.ReLU(True), nn.Linear(7, 6), nn.Tanh(),
        nn.Linear(6, 3),
    ).double()  # fmt: skip


NETWORKS = {"mlp": perceptron, "residual": lambda: Residual().double()}


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(12, 1, 8, 8, dtype=torch.float64), torch.arange(12) % 3


def convert(kind, rule, batch):
    torch.manual_seed(1)
    return transport_free(NETWORKS[kind](), rule, sample=batch[0])


def loss_of(model, batch):
    torch.manual_seed(2)  # the same units dropped each time
    model.train()
    return F.cross_entropy(model(batch[0]), batch[1])


def step_of_twin(model, exact, batch, lr):
    """Error at the first layer, gradients, and decrease of the loss where the layers ``exact`` hold B = W."""
    twin = copy.deepcopy(model)
    for name, layer in synapses(twin):
        if name in exact:
            with torch.no_grad():
                layer.feedback.copy_(layer.weight)
    first = next(layer for _, layer in synapses(twin))
    errors = []

    def listen(layer, x, y):
        y.register_hook(errors.append)

    handle = first.register_forward_hook(listen)
    before = loss_of(twin, batch)
    handle.remove()
    before.backward()
    trained = [p for name, p in twin.named_parameters() if name not in feedback_parameters(twin)]
    gradients = [p.grad.clone() for p in trained]
    torch.optim.SGD(trained, lr=lr).step()
    with torch.no_grad():
        return errors[0].flatten(), gradients, (before - loss_of(twin, batch)).item()


def degrees(a, b):
    return math.degrees(math.acos(min(1.0, F.cosine_similarity(a, b, dim=0).item())))


@pytest.mark.parametrize("lr", [0.05, 1e4, math.nan])
@pytest.mark.parametrize("kind", NETWORKS)
def test_costs_are_those_of_twin_networks(kind, lr, batch):
    model = convert(kind, "fa", batch)
    names = [name for name, _ in synapses(model)]
    truth, exact, _ = step_of_twin(model, names, batch, 0.0)
    if math.isnan(lr):
        trained = [p for name, p in model.named_parameters() if name not in feedback_parameters(model)]
        step = 1e-3 * math.sqrt(sum(p.norm().item() ** 2 for p in trained) / sum(g.norm().item() ** 2 for g in exact))
    else:
        step = lr
    results = [step_of_twin(model, names[k:], batch, step) for k in range(len(names) + 1)]
    assert (results[0][2] < 0) == (lr == 1e4)  # then an infinitesimal step counts
    angles = [degrees(errors, truth) for errors, _, _ in results]
    slopes = [sum((g * e).sum().item() for g, e in zip(found, exact, strict=True)) for _, found, _ in results]
    falls = slopes if lr == 1e4 else [decrease for _, _, decrease in results]
    torch.manual_seed(2)
    costs = attribution(model, *batch, lr=lr)
    assert list(costs) == names
    for k, name in enumerate(names):
        expected = angles[k + 1] - angles[k], (falls[k] - falls[k + 1]) / falls[0]
        np.testing.assert_allclose(costs[name], expected, rtol=1e-6, atol=1e-5)
    assert costs[names[0]] == (0.0, 0.0)  # sends no error
    angle, share = np.sum(list(costs.values()), axis=0)
    assert angle == pytest.approx(angles[-1], abs=1e-6)
    assert share == pytest.approx(1 - falls[-1] / falls[0], abs=1e-9)
    assert angle > 20


@pytest.mark.parametrize("rule", [name for name in RULES if issubclass(RULES[name], Direct)])
def test_direct_feedback_is_replaced_layer_by_layer(rule, batch):
    """By hand: the layer above the first one alone decides what the first one gets."""
    model = convert("mlp", rule, batch)
    x, target = batch
    one, two, three, four = (layer for _, layer in synapses(model))
    h1 = torch.tanh(one(x.flatten(1)))
    h2 = torch.relu(two(h1))
    h3 = torch.tanh(three(h2))
    onehot = F.one_hot(target, 3).double()
    error = (torch.softmax(four(h3), 1) - onehot) / len(x)
    signal = error if rule == "dfa" else -onehot / len(x)
    slopes = (1 - h1**2, (h2 > 0).double(), 1 - h3**2)
    w, b = ([getattr(layer, kind) for layer in (two, three, four)] for kind in ("weight", "feedback"))
    ruled = [signal @ matrix * slope for matrix, slope in zip(b, slopes, strict=True)]
    exact3 = error @ w[2] * slopes[2]
    exact2 = exact3 @ w[1] * slopes[1]
    exact1 = exact2 @ w[0] * slopes[0]
    mixed = [  # errors at the first three layers with W in none, the last, the last two of the layers above the first
        [ruled[0], ruled[1], ruled[2]], [ruled[0], ruled[1], exact3], [ruled[0], exact2, exact3],
        [exact1, exact2, exact3],
    ]  # fmt: skip
    inputs, layers = (x.flatten(1), h1, h2, h3), (one, two, three, four)
    falls = []
    with torch.no_grad():
        before = F.cross_entropy(model(x), target)
        for errors in mixed:
            twin = copy.deepcopy(model)
            for (_, layer), seen, delta in zip(synapses(twin), inputs, [*errors, error], strict=True):
                layer.weight -= 0.05 * delta.T @ seen
                layer.bias -= 0.05 * delta.sum(0)
            falls.append((before - F.cross_entropy(twin(x), target)).item())
    found = list(attribution(model, x, target, lr=0.05).values())
    assert len(found) == len(layers)
    angle = degrees(ruled[0].flatten(), exact1.flatten())
    expected = [
        (0.0, 0.0),
        (angle, (falls[3] - falls[2]) / falls[3]),
        (0.0, (falls[2] - falls[1]) / falls[3]),
        (0.0, (falls[1] - falls[0]) / falls[3]),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", NETWORKS)
def test_backprop_costs_nothing(kind, batch):
    costs = attribution(convert(kind, "bp", batch), *batch, lr=0.05)
    assert set(costs.values()) == {(0.0, 0.0)}


@pytest.mark.parametrize("rule", ["fa", *(name for name in RULES if RULES[name].learned)])
def test_feedback_that_is_the_forward_weights_costs_nothing(rule, batch):
    model = convert("mlp", rule, batch)
    with torch.no_grad():
        for _, layer in synapses(model):
            layer.feedback.copy_(layer.weight)
    costs = np.array(list(attribution(model, *batch, lr=0.05).values()))
    assert costs.shape == (4, 2)
    np.testing.assert_allclose(costs, 0.0, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", NETWORKS)
def test_nothing_of_the_model_changes(kind, rule, batch):
    model = convert(kind, rule, batch)
    model.eval()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    first = attribution(model, *batch, lr=0.05)
    assert first == attribution(model, *batch, lr=0.05)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(layer.tracer is None for _, layer in synapses(model))


def test_frozen_parameters_do_not_learn(batch):
    model = convert("mlp", "fa", batch)
    for _, layer in list(synapses(model))[:-1]:
        layer.weight.requires_grad_(False)
        layer.bias.requires_grad_(False)
    costs = attribution(model, *batch, lr=0.05)
    assert [share for _, share in costs.values()] == [0.0] * 4  # the last layer's error is exact
    assert sum(angle for angle, _ in costs.values()) > 20
    for p in model.parameters():
        p.requires_grad_(False)
    costs = list(attribution(model, *batch).values())
    assert len(costs) == 4
    assert costs[0] == (0.0, 0.0)
    assert np.isnan([share for _, share in costs[1:]]).all()


def test_a_rate_too_small_to_see_gives_the_slope(batch):
    """In float32 the decrease of a tiny step is rounding; its slope is not."""
    model = convert("mlp", "fa", batch)
    expected = attribution(model, *batch, lr=1e-9)
    found = attribution(model.float(), batch[0].float(), batch[1], lr=1e-9)
    assert found.keys() == expected.keys() == {"1", "3", "5", "7"}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-300, math.nan, math.inf])
def test_errors_without_an_angle(scale, batch):
    """They are NaN from the layer on that takes the angle away; below it, all above it is exact."""
    model = convert("mlp", "fa", batch)
    with torch.no_grad():
        model[5].feedback.mul_(scale)
    costs = attribution(model, *batch, lr=0.05)
    assert costs["1"] == (0.0, 0.0)
    assert np.isfinite(costs["3"]).all()
    assert [math.isnan(costs[name][0]) for name in ("5", "7")] == [True, True]
    assert math.isfinite(costs["5"][1]) == (scale < 1)


def test_weights_that_are_not_finite(batch):
    model = convert("residual", "fa", batch)
    with torch.no_grad():
        model.body.weight[0] = math.nan
    costs = attribution(model, *batch, lr=0.05)
    assert len(costs) > 2
    assert np.isnan(list(costs.values())[1:]).all()
