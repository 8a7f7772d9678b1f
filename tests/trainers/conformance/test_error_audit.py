"""The audit of networks from elsewhere: code of the kind that people publish, and its classic faults."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.trainers.conformance.error_audit import BACKPROP, DIRECT, FIXED, LEARNED, SIGNS, UNKNOWN, audit
from wtdiag.trainers.layers.convert import transport_free


class Alignment(torch.autograd.Function):
    """Feedback alignment as it is written by hand."""

    @staticmethod
    def forward(ctx, x, weight, bias, feedback):
        ctx.save_for_backward(x, feedback)
        return x @ weight.t() + bias

    @staticmethod
    def backward(ctx, dy):
        x, feedback = ctx.saved_tensors
        return dy @ feedback, dy.t() @ x, dy.sum(0), None


class KolenPollack(Alignment):
    @staticmethod
    def backward(ctx, dy):
        *rest, _ = Alignment.backward(ctx, dy)
        return *rest, rest[1]


class CopiedWeight(Alignment):
    """Weight transport in disguise: what is kept for the backward pass is a copy of W."""

    @staticmethod
    def forward(ctx, x, weight, bias, feedback):
        return Alignment.forward(ctx, x, weight, bias, weight.detach().clone()) + 0 * feedback.sum()


class Signs(Alignment):
    @staticmethod
    def forward(ctx, x, weight, bias, feedback):
        Alignment.forward(ctx, x, weight, bias, feedback.abs() * weight.sign())
        return x @ weight.t() + bias


class Layer(nn.Module):
    def __init__(self, inputs, outputs, function=Alignment, learns=False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.B = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5, requires_grad=learns)
        self.function = function

    def forward(self, x):
        return self.function.apply(x, self.weight, self.bias, self.B)


def perceptron(make=nn.Linear):
    torch.manual_seed(0)
    return nn.Sequential(make(6, 8), nn.Tanh(), make(8, 7), nn.Tanh(), make(7, 3))


def loss_of(net, shape=(16, 6)):
    x, target = torch.randn(shape), torch.arange(shape[0]) % 3
    return lambda: F.cross_entropy(net(x), target)


def of(function, learns=False):
    return lambda: perceptron(lambda inputs, outputs: Layer(inputs, outputs, function, learns))


def hooked():
    """B in a hook on the module, as a variable of its own."""
    net = perceptron()
    for layer in (net[2], net[4]):
        B = torch.randn_like(layer.weight)

        def hook(module, sent, error, B=B):
            return (error[0] @ B,)

        layer.register_full_backward_hook(hook)
    return net


def scaled():
    """A hook that multiplies the gradients, whose error path still is W's."""
    net = perceptron()
    for layer, size in ((net[2], 8), (net[4], 7)):
        factor = torch.rand(size)

        def hook(module, sent, error, factor=factor):
            return (sent[0] * factor,)

        layer.register_full_backward_hook(hook)
    return net


class Detour(nn.Module):
    """The error goes around the last layer, through B."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.B = torch.randn(3, 8)

    def forward(self, x):
        h = self.first(x).tanh()
        through = h @ self.B.t()
        return self.last(h.detach()) + through - through.detach()


CASES = {
    "backprop": (perceptron, BACKPROP, True, False),
    "function, fixed B": (of(Alignment), FIXED, False, False),
    "function, learned B": (of(KolenPollack, learns=True), LEARNED, False, False),
    "function, B is never updated": (of(Alignment, learns=True), FIXED, False, True),
    "function, a copy of W": (of(CopiedWeight), BACKPROP, True, False),
    "function, signs": (of(Signs), SIGNS, False, False),
    "hook with B": (hooked, FIXED, False, False),
    "hook that multiplies": (scaled, UNKNOWN, True, False),
    "converted, fa": (lambda: transport_free(perceptron(), "fa"), FIXED, False, False),
    "converted, kp": (lambda: transport_free(perceptron(), "kp"), LEARNED, False, False),
    "converted, usf": (lambda: transport_free(perceptron(), "usf"), SIGNS, False, False),
    "converted, brsf": (lambda: transport_free(perceptron(), "brsf"), SIGNS, False, False),
    "converted, bp": (lambda: transport_free(perceptron(), "bp"), BACKPROP, True, False),
}


@pytest.mark.parametrize("case", CASES)
def test_what_each_layer_learns_by(case):
    make, rule, sees, stuck = CASES[case]
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first, *layers = audit(net, loss_of(net))
    assert not first.sends
    assert [(layer.name, layer.rule, layer.sees_weight, layer.stuck) for layer in layers] == [
        ("2", rule, sees, stuck),
        ("4", rule, sees, stuck),
    ], layers
    assert all(layer.sends and layer.fails == (sees or stuck) for layer in layers)
    if case.startswith("function") and rule in (FIXED, LEARNED):
        assert [layer.feedback for layer in layers] == [("2.B",), ("4.B",)]
    if case == "hook with B":
        assert [layer.feedback for layer in layers] == [("hook of 2: B",), ("hook of 4: B",)]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]) or case == "converted, brsf", name


def test_feedback_that_the_loop_of_the_user_moves_has_learned():
    net = of(Alignment)()
    loss = loss_of(net)

    def step():
        for layer in (net[2], net[4]):
            layer.B.data.add_(0.1 * layer.weight.detach())

    assert [layer.rule for layer in audit(net, loss, step)] == [FIXED, LEARNED, LEARNED]


def test_feedback_updated_under_a_condition_that_never_holds_is_fixed():
    """The update asks for a word in the class's name that no class has."""
    net = of(Alignment)()
    loss = loss_of(net)

    def step():
        for layer in net:
            if "Conv" in type(layer).__name__:
                layer.B.data.add_(0.1 * layer.weight.detach())

    assert [layer.rule for layer in audit(net, loss, step)] == [FIXED] * 3


def test_an_error_that_goes_around_a_layer_is_not_taken_for_backprop():
    net = Detour()
    first, last = audit(net, loss_of(net))
    assert not last.sends
    assert not any(layer.fails for layer in (first, last))


class Replaced(nn.Module):
    """A hook between the layers, whose error has nothing to do with that of the layer above."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.first(x).tanh()
        h.register_hook(torch.ones_like)
        return self.last(h)


def test_an_error_that_is_replaced_between_layers_is_not_taken_for_backprop():
    net = Replaced()
    _, last = audit(net, loss_of(net))
    assert (last.rule, last.sees_weight, last.note) == (UNKNOWN, False, "its error is replaced outside the layer")


def test_a_layer_that_needs_the_whole_network_is_judged_in_it():
    net = transport_free(perceptron(), "dfa")
    found = audit(net, loss_of(net))
    assert [(layer.rule, layer.sees_weight) for layer in found] == [(UNKNOWN, False)] * 3
    assert "cannot be run alone (RuntimeError: dfa: the output error never reached a layer" in found[1].note


def test_weights_that_are_used_without_a_call_are_named():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
    net = nn.Sequential(nn.Linear(6, 8), encoder, nn.Flatten(), nn.Linear(16, 3))
    found = {layer.name: layer for layer in audit(net, loss_of(net, (8, 2, 6)))}
    assert [*found] == ["0", "1.self_attn", "1.self_attn.out_proj", "1.linear1", "1.linear2", "3"]
    projection = found.pop("1.self_attn.out_proj")
    assert (projection.rule, projection.sees_weight, projection.sends) == (UNKNOWN, True, True)
    assert "without calling it" in projection.note
    assert {layer.rule for layer in found.values()} == {BACKPROP}


class Standardised(nn.Linear):
    """Nonlinear in its input."""

    def forward(self, x):
        return super().forward(torch.sin(2 * x))


def test_a_layer_that_is_not_linear_is_judged_between_the_passes():
    net = perceptron(Standardised)
    assert [(layer.rule, layer.sees_weight) for layer in audit(net, loss_of(net))] == [(BACKPROP, True)] * 3


def test_convolutions_and_dropout_are_judged():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    found = audit(net, loss_of(net, (8, 1, 6, 6)))
    assert [(layer.name, layer.rule) for layer in found] == [("0", BACKPROP), ("4", BACKPROP), ("6", BACKPROP)]
    assert [layer.sends for layer in found] == [False, True, True]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("mode", "rule"), [("fa", FIXED), ("usf", SIGNS), ("frsf", SIGNS), ("brsf", SIGNS), ("dfa", DIRECT)]
)
def test_layers_of_biotorch(mode, rule):
    biotorch = pytest.importorskip("biotorch.module.biomodule")
    options = {"output_dim": 3} if mode == "dfa" else {}
    net = biotorch.BioModule(perceptron(), mode=mode, **options)
    x, target = torch.randn(16, 6), torch.arange(16) % 3
    given = (x, target, F.cross_entropy) if mode == "dfa" else (x,)
    found = audit(net, lambda: F.cross_entropy(net(*given), target))
    assert [(layer.rule, layer.sees_weight) for layer in found] == [(rule, False)] * 3
    if mode == "fa":
        assert found[1].feedback == ("module.2.weight_backward",)


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        ("net", lambda: None, "^audit: model is str; expected a torch.nn.Module"),
        (nn.Linear(2, 2), lambda: 1.0, "^audit: loss returned 1.0; expected a number with a gradient"),
        (nn.Linear(2, 2), lambda: torch.ones(2), r"^audit: loss returned tensor\(\[1., 1.\]\); expected a number"),
        (nn.Linear(2, 2), lambda: 1 / 0, "^audit: the network cannot be run: ZeroDivisionError: division by zero"),
        (
            nn.ReLU(),
            lambda: torch.ones(1, requires_grad=True).sum(),
            "^audit: no module of the network holds a matrix of weights",
        ),
    ],
)
def test_what_cannot_be_audited_is_named(model, loss, message):
    with pytest.raises(InputError, match=message):
        audit(model, loss)
