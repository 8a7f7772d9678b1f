"""Gradients of every layer type under every rule, in float64, against autograd of what the papers define."""

import copy
import dataclasses
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.layer_cases import CASES, Case, adjoint, seen, uses
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.layers.operations import Dense
from wtdiag.trainers.rules import RULES, rule
from wtdiag.trainers.rules.direct import Direct
from wtdiag.trainers.rules.factored import Factored
from wtdiag.trainers.rules.local import Local
from wtdiag.trainers.rules.perturbed import Perturbed
from wtdiag.trainers.rules.primitives import PRIMITIVES

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # said by PyTorch's layer

FACTORED = [name for name in RULES if issubclass(RULES[name], Factored)]
LAYERWISE = [name for name in RULES if not issubclass(RULES[name], Direct)]
SHARING = [name for name in RULES if RULES[name].learned and "weight_grad" in RULES[name]().shares]
LEARNED = [name for name in LAYERWISE if RULES[name].learned]
PERTURBED = [name for name in RULES if issubclass(RULES[name], Perturbed)]  # here without noise
SUM = {"amp": 0.7, "null": 0.3, "decay": 0.2, "sparse": 0.5, "self": 0.4}


def losses(layer: nn.Module, x: Tensor, feedback: Tensor, reduction: str, noise: bool = False) -> dict[str, Tensor]:
    """Each primitive's loss as the papers define it, for autograd to differentiate by ``feedback``."""
    x, function = seen(layer, x.detach())
    if noise:
        x = torch.randn_like(x)
    w = layer.weight.detach()
    y = function(x, w)
    n = x.shape[0] * (uses(layer, x, y) if reduction == "mean" else 1)
    down = adjoint(function, feedback, y, x)
    return {
        "amp": -(x * down).sum() / n,
        "null": down.square().sum() / 2 / n,
        "decay": feedback.square().sum() / 2,
        "sparse": function(x, feedback).square().sum() / 2 / n,
        "self": -(feedback * w).sum(),
    }


def reconstruction(layer: nn.Module, x: Tensor, feedback: Tensor) -> Tensor:
    """− 2 ⟨ξ, Bᵀ W ξ⟩ + ‖Bᵀ ζ‖² of fresh normal noise, on average over examples and positions."""
    x, function = seen(layer, x.detach())
    xi = torch.randn_like(x)
    y = function(xi, layer.weight.detach())
    zeta = torch.randn_like(y)
    n = x.shape[0] * uses(layer, x, y)
    down, back = adjoint(function, feedback, y, x), adjoint(function, feedback, zeta, x)
    return (-2 * (xi * down).sum() + back.square().sum()) / n


def weighted(terms: dict[str, Tensor], coefficients: dict[str, float]) -> Tensor:
    return sum((coefficients[name] * terms[name] for name in coefficients), torch.zeros((), dtype=torch.float64))


def run(layer: nn.Module, x: Tensor, dy: Tensor) -> Tensor:
    """One forward and backward pass; returns dx."""
    x = x.clone().requires_grad_()
    (layer(x) * dy).sum().backward()
    return x.grad


def convert(case: Case, name: str, **coefficients) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    native = case.build()
    x = case.input()
    dy = torch.randn(native(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    if name == "sum":
        coefficients = SUM | coefficients
    torch.manual_seed(3)
    options = ({"batch_axis": 0} if name in PERTURBED else {}) | coefficients
    return native, transport_free(native, name, **options), x, dy


def close(got: Tensor | None, expected: Tensor | None) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", LAYERWISE)
def test_gradients_equal_their_definition(name, case):
    native, layer, x, dy = convert(CASES[case], name)
    torch.manual_seed(4)
    out = layer(x)
    assert torch.equal(out, native(x))
    dx = run(layer, x, dy)
    run(native, x, dy)
    with_feedback = copy.deepcopy(native)
    with_feedback.weight.data.copy_(layer.feedback.detach())
    close(dx, run(with_feedback, x, dy))
    decay = layer.rule.decay if name in SHARING else 0.0
    close(layer.weight.grad, native.weight.grad + decay * native.weight)
    if native.bias is not None:
        close(layer.bias.grad, native.bias.grad)
    if name == "bp":
        assert layer.feedback is layer.weight
    elif not RULES[name].learned:
        assert layer.feedback.grad is None
        assert not layer.feedback.requires_grad
    elif name in SHARING:
        learned = layer.learned_feedback
        close(learned.grad, layer.shared_update(native.weight.grad) + decay * learned)
    else:
        feedback = layer.feedback.detach().clone().requires_grad_()
        torch.manual_seed(4)
        if name == "np":
            x_, function = seen(native, x)
            sent = adjoint(function, feedback, dy.view_as(function(x_, native.weight.detach())), x_)
            (len(x_) / 2 * sent.square().sum()).backward()
        elif name == "wm-live":
            (layer.rule.decay / 2 * feedback.square().sum()).backward()
        elif name == "ldrl":
            (layer.rule.amp / 2 * reconstruction(native, x, feedback)).backward()
        else:
            noise = layer.rule.inputs == "noise"
            weighted(losses(native, x, feedback, "mean", noise), layer.rule.coefficients).backward()
        torch.manual_seed(4)
        layer.feedback.grad = None
        run(layer, x, dy)
        close(layer.feedback.grad, feedback.grad)


@pytest.mark.parametrize("case", CASES)
def test_backprop_equals_autograd_bit_by_bit(case):
    native, layer, x, dy = convert(CASES[case], "bp")
    assert torch.equal(run(layer, x, dy), run(native, x, dy))
    for got, expected in zip(layer.parameters(), native.parameters(), strict=True):
        assert torch.equal(got.grad, expected.grad)


@pytest.mark.parametrize("case", ["linear", "linear-3d", "conv2d", "transposed2d"])
def test_backprop_in_single_precision_equals_autograd_bit_by_bit(case):
    native, layer, x, dy = (a.float() for a in convert(CASES[case], "bp"))
    assert torch.equal(run(layer, x, dy), run(native, x, dy))
    for got, expected in zip(layer.parameters(), native.parameters(), strict=True):
        assert torch.equal(got.grad, expected.grad)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [name for name in LAYERWISE if name not in ("bp", "usf", "brsf", *FACTORED)])
def test_feedback_equal_to_weight_is_autograd_bit_by_bit(name, case):
    native, layer, x, dy = convert(CASES[case], name)
    layer.feedback.data.copy_(native.weight)
    assert torch.equal(run(layer, x, dy), run(native, x, dy))
    expected = native.weight.grad
    if name == "kp":
        expected = expected.add(native.weight, alpha=layer.rule.decay)
    assert torch.equal(layer.weight.grad, expected)
    if native.bias is not None:
        assert torch.equal(layer.bias.grad, native.bias.grad)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_uniform_signs_equal_to_weight_are_autograd(scale):
    # usf has one magnitude: it can equal W only where W has one too.
    native, layer, x, dy = convert(CASES["conv2d"], "usf", scale=scale)
    magnitude = scale * (2 / (3 * 3 * 3)) ** 0.5
    for each in (native, layer):
        each.weight.data.sign_().mul_(magnitude)
    close(run(layer, x, dy), run(native, x, dy))
    assert torch.equal(layer.weight.grad, native.weight.grad)


@pytest.mark.parametrize("case", ["linear", "conv2d", "transposed1d"])
def test_backprop_can_be_differentiated_twice(case):
    native, layer, x, dy = convert(CASES[case], "bp")
    second = []
    for each in (native, layer):
        free = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad((each(free).tanh() * dy).sum(), free, create_graph=True)
        second.append(torch.autograd.grad(dx.square().sum(), [free, each.weight]))
    for expected, got in zip(*second, strict=True):
        close(got, expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_primitive_is_the_gradient_of_its_loss(primitive, case, reduction):
    alone = {name: 1.3 if name == primitive else 0.0 for name in PRIMITIVES}
    native, layer, x, dy = convert(CASES[case], "sum", reduction=reduction, batch_axis=0, **alone)
    run(layer, x, dy)
    feedback = layer.feedback.detach().clone().requires_grad_()
    (1.3 * losses(native, x, feedback, reduction)[primitive]).backward()
    close(layer.feedback.grad, feedback.grad)


@pytest.mark.parametrize("batch_axis", [0, 1])
@pytest.mark.parametrize("primitive", ["amp", "null", "sparse"])
def test_sums_over_positions_are_averaged_over_the_axis_of_examples(primitive, batch_axis):
    alone = {name: 1.3 if name == primitive else 0.0 for name in PRIMITIVES}
    native, layer, x, dy = convert(CASES["linear-3d"], "sum", reduction="sum", batch_axis=batch_axis, **alone)
    run(layer, x, dy)
    feedback = layer.feedback.detach().clone().requires_grad_()
    (1.3 * losses(native, x.movedim(batch_axis, 0), feedback, "sum")[primitive]).backward()
    close(layer.feedback.grad, feedback.grad)


def test_reductions_differ_by_the_number_of_positions():
    grads = []
    for reduction in ("sum", "mean"):
        _, layer, x, dy = convert(CASES["conv2d"], "sum", reduction=reduction, decay=0.0, self=0.0)
        run(layer, x, dy)
        grads.append(layer.feedback.grad)
    close(grads[0], 36 * grads[1])


@pytest.mark.parametrize("case", ["linear-3d", "conv2d-oblong", "transposed2d"])
def test_a_rule_is_the_sum_of_its_primitives_in_every_combination(case):
    def gradient(coefficients: dict[str, float]) -> Tensor:
        _, layer, x, dy = convert(CASES[case], "sum", **dict.fromkeys(PRIMITIVES, 0.0) | coefficients)
        run(layer, x, dy)
        return layer.feedback.grad

    single = {name: gradient({name: value}) for name, value in SUM.items()}
    for used in product([False, True], repeat=len(SUM)):
        names = [name for name, use in zip(SUM, used, strict=True) if use]
        together = gradient({name: SUM[name] for name in names})
        close(together, sum((single[name] for name in names), torch.zeros_like(together)))


@pytest.mark.parametrize("name", ["wm-reg", "ia", "sa", "aa", "wm"])
def test_named_rules_are_the_sums_their_equations_say(name):
    terms = {"wm-reg": "amp decay", "ia": "amp null decay", "sa": "self decay", "aa": "amp sparse", "wm": "amp decay"}
    coefficients = {term: getattr(rule(name), term) for term in terms[name].split()}
    assert all(value > 0 for value in coefficients.values())
    source = "noise" if name == "wm" else "activations"
    grads = []
    for model, given in ((name, {}), ("sum", {**dict.fromkeys(PRIMITIVES, 0.0), **coefficients, "inputs": source})):
        _, layer, x, dy = convert(CASES["conv2d"], model, **given)
        torch.manual_seed(5)
        run(layer, x, dy)
        grads.append(layer.feedback.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("frozen", ["weight", "bias", "input"])
@pytest.mark.parametrize("name", ["ia", "kp", "wm"])
def test_feedback_learns_though_other_things_are_frozen(name, frozen):
    _, layer, x, dy = convert(CASES["conv2d"], name)
    expected = copy.deepcopy(layer)
    torch.manual_seed(5)
    run(expected, x, dy)
    if frozen != "input":
        getattr(layer, frozen).requires_grad_(False)
    torch.manual_seed(5)
    (layer(x.requires_grad_(frozen != "input")) * dy).sum().backward()
    if (name, frozen) == ("kp", "weight"):  # W stands still, so B takes no step but the decay of W − B
        close(layer.feedback.grad, layer.rule.decay * (layer.feedback - layer.weight).detach())
    else:
        assert torch.equal(layer.feedback.grad, expected.feedback.grad)
    assert frozen == "input" or getattr(layer, frozen).grad is None


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("case", ["linear", "conv2d"])
def test_an_empty_batch_gives_the_gradient_of_nothing(name, case):
    _, layer, x, _ = convert(CASES[case], name)
    layer(x[:0]).sum().backward()
    of_b = getattr(layer.rule, "decay", 0.0) * layer.learned_feedback
    if getattr(layer.rule, "self", 0.0):
        of_b = of_b - layer.rule.self * layer.weight
    close(layer.learned_feedback.grad, of_b.detach())


@pytest.mark.parametrize("case", ["linear", "conv2d", "conv2d-reflect", "transposed2d"])
@pytest.mark.parametrize("name", LEARNED)
def test_a_layer_used_twice_sums_its_gradients(name, case):
    _, layer, x, dy = convert(CASES[case], name)
    other = x.flip(0)
    apart = []
    torch.manual_seed(5)
    for each in (other, x):  # backward visits the later use first
        layer.zero_grad()
        run(layer, each, dy)
        apart.append((layer.weight.grad, layer.learned_feedback.grad))
    layer.zero_grad()
    torch.manual_seed(5)
    (layer(x) * dy + layer(other) * dy).sum().backward()
    close(layer.weight.grad, apart[0][0] + apart[1][0])
    close(layer.learned_feedback.grad, apart[0][1] + apart[1][1])


@pytest.mark.parametrize("noise", ["normal", "uniform"])
@pytest.mark.parametrize("std", [0.5, 2.0])
def test_mirror_noise_has_the_given_moments(noise, std):
    torch.manual_seed(0)
    x = torch.zeros(400, 250, dtype=torch.float64)
    w = torch.ones(1, 250, dtype=torch.float64)
    drawn = Local(Dense(), x, w, 1, weight=w).mirror(noise, std).x / std
    n = drawn.numel()
    fourth = {"normal": 3.0, "uniform": 1.8}[noise]
    assert abs(drawn.mean()) < 5 / n**0.5
    assert abs(drawn.square().mean() - 1) < 5 * ((fourth - 1) / n) ** 0.5
    assert abs(drawn.pow(4).mean() - fourth) < 0.1


def test_output_size_of_transposed_convolutions_counts():
    native, layer, x, _ = convert(Case(lambda: nn.ConvTranspose2d(3, 4, 3, stride=2), (2, 3, 4, 4)), "bp")
    outputs = [each(x, output_size=[10, 10]) for each in (native, layer)]
    assert torch.equal(*outputs)
    for each in outputs:
        each.square().sum().backward()
    assert torch.equal(native.weight.grad, layer.weight.grad)


def test_primitives_never_change_what_they_read():
    _, layer, x, dy = convert(CASES["conv2d"], "sum")
    before = [layer.weight.detach().clone(), layer.feedback.detach().clone(), x.clone()]
    for active in product([0.0, 1.0], repeat=5):  # 1.0 is where a term could be returned as it is
        layer.rule = dataclasses.replace(layer.rule, **dict(zip(SUM, active, strict=True)))
        run(layer, x, dy)
        layer.feedback.grad.zero_()
    for now, then in zip([layer.weight, layer.feedback, x], before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.parametrize("name", LEARNED)
def test_a_rule_leaves_the_synapse_that_it_is_given_as_it_is(name):
    learning = rule(name, **(SUM if name == "sum" else {}))
    x, y, w, b = (torch.randn(shape, dtype=torch.float64) for shape in ((6, 5), (6, 4), (4, 5), (4, 5)))
    known = {"weight": w} | ({"y": y} if "output" in learning.shares else {})
    s = Local(Dense(), x, b, 1, **known, weight_grad=torch.zeros_like(w), noise=x, error=y, change=y[:, 0])
    before = dict(vars(s))
    learning.feedback_grad(s)
    learning.feedback_loss(s)
    learning.curvature(s)
    if "weight_grad" in learning.shares:
        learning.weight_grad_at_rest(s)
    assert vars(s).keys() == before.keys()
    assert all(vars(s)[key] is value for key, value in before.items())
