"""The cost of each layer's feedback against twin networks of which some layers carry error exactly."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag.trainers.layers.convert import feedback_parameters, synapses, transport_free
from wtdiag.trainers.observe import shapley
from wtdiag.trainers.observe.attribution import LayerCost, attribution
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


NOTHING = LayerCost(0.0, 0.0)
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
    twins = {
        exact: step_of_twin(model, exact, batch, step)
        for size in range(len(names) + 1)
        for exact in itertools.combinations(names, size)
    }
    assert (twins[tuple(names)][2] < 0) == (lr == 1e4)  # then an infinitesimal step counts

    def fall(found):
        slope = sum((g * e).sum().item() for g, e in zip(found[1], exact, strict=True))
        return slope if lr == 1e4 else found[2]

    whole = fall(twins[tuple(names)])
    value = {twin: (degrees(found[0], truth), 1 - fall(found) / whole) for twin, found in twins.items()}
    expected = dict.fromkeys(names, 0.0)
    for order in itertools.permutations(names):
        for place, name in enumerate(order):
            with_it, without = (tuple(n for n in names if n in order[k:]) for k in (place + 1, place))
            expected[name] += np.subtract(value[with_it], value[without]) / math.factorial(len(names))
    torch.manual_seed(2)
    costs = attribution(model, *batch, lr=lr)
    assert list(costs) == names
    for name in names:
        np.testing.assert_allclose(costs[name], [*expected[name], 0, 0], rtol=1e-6, atol=1e-5)
    assert costs[names[0]] == NOTHING  # sends no error
    angle, share, *_ = np.sum(list(costs.values()), axis=0)
    assert angle == pytest.approx(value[()][0], abs=1e-6)
    assert share == pytest.approx(value[()][1], abs=1e-9)
    assert angle > 20


def test_many_layers_are_sampled_within_the_error_and_add_up():
    torch.manual_seed(0)
    layers = [part for _ in range(8) for part in (nn.Linear(6, 6), nn.Tanh())]
    model = transport_free(nn.Sequential(*layers, nn.Linear(6, 3)).double(), "fa")
    batch = torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3
    found = np.array(list(attribution(model, *batch, lr=0.05).values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapley, "EXACT", 8)
        exact = np.array(list(attribution(model, *batch, lr=0.05).values()))
    np.testing.assert_allclose(found.sum(0)[:2], exact.sum(0)[:2], rtol=1e-12)
    assert (found[1:, 2:] > 0).all()
    assert not exact[:, 2:].any()
    assert (np.abs(found - exact)[1:, :2] < 3 * found[1:, 2:]).mean() > 0.9


def test_passes_are_bounded():
    for players in (3, 5, 6, 20):
        asked = []
        generator = np.random.default_rng(players)
        shapley.shapley(lambda coalition: (asked.append(coalition), generator.normal())[1], players)  # noqa: B023
        assert len(asked) == len(set(asked))
        assert len(asked) <= max(64, 4 * players)


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
    signal = error if rule != "drtp" else -onehot / len(x)
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
    found = [cost[:2] for cost in attribution(model, x, target, lr=0.05).values()]
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
    assert set(costs.values()) == {NOTHING}


@pytest.mark.parametrize("rule", ["fa", *(name for name in RULES if RULES[name].learned and name != "dkp")])
def test_feedback_that_is_the_forward_weights_costs_nothing(rule, batch):
    whole = {"pfa": {"left": "identity"}, "ldfa": {"rank": 99}}.get(rule, {})
    model = convert("mlp", RULES[rule](**whole), batch)
    with torch.no_grad():
        for _, layer in synapses(model):
            layer.learned_feedback.copy_(layer.shared_update(layer.weight))
    costs = np.array(list(attribution(model, *batch, lr=0.05).values()))
    assert costs.shape == (4, 4)
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
    assert [cost.loss for cost in costs.values()] == [0.0] * 4  # the last layer's error is exact
    assert sum(cost.angle for cost in costs.values()) > 20
    for p in model.parameters():
        p.requires_grad_(False)
    costs = list(attribution(model, *batch).values())
    assert len(costs) == 4
    assert costs[0] == NOTHING
    assert np.isnan([cost.loss for cost in costs[1:]]).all()


def test_a_rate_too_small_to_see_gives_the_slope(batch):
    """In float32 the decrease of a tiny step is rounding; its slope is not."""
    model = convert("mlp", "fa", batch)
    expected = attribution(model, *batch, lr=1e-9)
    found = attribution(model.float(), batch[0].float(), batch[1], lr=1e-9)
    assert found.keys() == expected.keys() == {"1", "3", "5", "7"}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1e-300, math.nan, math.inf])
def test_errors_without_an_angle(scale, batch):
    """Whether a layer stands before or after the one that takes the angle away is up to the order."""
    model = convert("mlp", "fa", batch)
    with torch.no_grad():
        model[5].feedback.mul_(scale)
    costs = attribution(model, *batch, lr=0.05)
    assert costs["1"] == NOTHING
    for name in ("3", "5", "7"):
        assert math.isnan(costs[name].angle)
        assert math.isfinite(costs[name].loss) == (scale < 1)


def test_weights_that_are_not_finite(batch):
    model = convert("residual", "fa", batch)
    with torch.no_grad():
        model.body.weight[0] = math.nan
    costs = attribution(model, *batch, lr=0.05)
    assert len(costs) > 2
    assert np.isnan(list(costs.values())[1:]).all()
