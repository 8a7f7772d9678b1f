"""Options of Kunin et al.'s code, against autograd of its loss written out in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.trainers.layer_cases import CASES, adjoint, seen, uses
from wtdiag.probes.errors import InputError
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import rule

RULES = {
    "wm-reg": {"amp": 0.7, "decay": 0.2},
    "ia": {"amp": 0.7, "null": 0.3, "decay": 0.2},
    "aa": {"amp": 0.7, "sparse": 0.5},
    "sum": {"amp": 0.7, "null": 0.3, "decay": 0.2, "sparse": 0.5, "self": 0.4},
}
LAYERS = ["linear", "linear-3d", "conv2d-oblong", "conv2d-depthwise", "transposed2d"]
STANDARD = [
    {"centre": "batch"},
    {"centre": "examples"},
    {"normalise": "inputs"},
    {"normalise": "all"},
]
BIASED = [
    {"bias": "forward"},
    {"bias": "both"},
    {"activation_forward": "sigmoid"},
    {"activation_backward": "tanh"},
    {"bias": "both", "activation_forward": "relu", "activation_backward": "relu"},
    {"bias": "backward", "activation_forward": "tanh", "activation_backward": "sigmoid", "centre": "batch"},
    {"bias": "forward", "activation_backward": "tanh", "centre": "examples"},
    {"bias": "both", "activation_forward": "sigmoid", "activation_backward": "tanh", "normalise": "all"},
]
FUNCTIONS = {"none": lambda z: z, "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def changed(x, how):
    """Less a mean over the batch or over each example, or with that divided by its norm."""
    if how == "none":
        return x
    if how == "batch":
        return x - x.mean(0)
    x = x - x.flatten(1).mean(1).view(-1, *(1,) * (x.dim() - 1))
    return x / x.flatten(1).norm(dim=1).view(-1, *(1,) * (x.dim() - 1)) if how == "norm" else x


def regulariser(
    native, x, w, feedback, *, amp=0.0, null=0.0, decay=0.0, sparse=0.0, self=0.0,
    centre="none", normalise="none", bias="none", activation_forward="none", activation_backward="none",
):  # fmt: skip
    """The code's loss as a function of W and B, in our coefficients."""
    x, function = seen(native, x)
    x = changed(x, "examples" if centre == "examples" else "norm" if normalise != "none" else "none")
    forward, backward = function(x, w), function(changed(x, "batch") if centre == "batch" else x, feedback)
    b = native.bias.detach().view(-1, *(1,) * (0 if isinstance(native, torch.nn.Linear) else x.dim() - 2))
    if bias in ("forward", "both"):
        forward = forward + b
    if bias in ("backward", "both"):
        backward = backward + b
    forward, backward = FUNCTIONS[activation_forward](forward), FUNCTIONS[activation_backward](backward)
    reconstruction = adjoint(function, feedback, forward, x)
    after = "norm" if normalise == "all" else centre
    n = len(x) * uses(native, x, forward)
    forward, reconstruction = changed(forward, after), changed(reconstruction, after)
    backward = backward if after == "batch" else changed(backward, after)
    squares = sparse * (forward.square().sum() + backward.square().sum()) + null * reconstruction.square().sum()
    total = (squares / 2 - amp * (forward * backward).sum()) / n
    return total + decay * (feedback.square().sum() + w.square().sum()) / 2 - self * (feedback * w).sum()


def trained(case, name, **options):
    native, x = CASES[case].build(), CASES[case].input()
    layer = transport_free(native, name, batch_axis=0, **RULES[name], **options)
    layer(x).square().sum().backward()
    native(x).square().sum().backward()
    return native, x, layer


def expected(native, x, layer, **given):
    """The gradients of W and B by autograd."""
    w, feedback = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.feedback))
    regulariser(native, x, w, feedback, **given).backward()
    return w.grad, feedback.grad


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [{}, *STANDARD, *BIASED], ids=lambda given: "-".join(given.values()) or "plain")
def test_w_and_b_descend_the_loss_that_is_written_out(options, name, case):
    native, x, layer = trained(case, name, update_forward="yes", **options)
    of_w, of_b = expected(native, x, layer, **RULES[name], **options)
    torch.testing.assert_close(layer.feedback.grad, of_b, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        layer.weight.grad - native.weight.grad, of_w, rtol=1e-9, atol=1e-8
    )  # the task's is large
    assert of_w.norm() > 0.001
    signals = error_signals(layer, x, x, loss=lambda output, _: output.square().sum())["model"]
    torch.testing.assert_close(torch.from_numpy(signals["forward_gradient"]), layer.weight.grad, rtol=1e-9, atol=1e-8)
    affine = options.get("normalise") != "all" and "activation_backward" not in options
    assert ("law" in signals) == affine
    if affine:
        law = signals["law"].gradient(layer.feedback.detach().numpy())
        torch.testing.assert_close(torch.from_numpy(law), of_b, rtol=1e-7, atol=1e-8)
        assert not options or signals["law"].channel() is None


@pytest.mark.parametrize("options", [*STANDARD, *BIASED[2:]], ids=lambda given: "-".join(given.values()))
def test_options_change_b_alone(options):
    native, x, layer = trained("conv2d-oblong", "sum", **options)
    _, of_b = expected(native, x, layer, **RULES["sum"], **options)
    _, plain = expected(native, x, layer, **RULES["sum"])
    torch.testing.assert_close(layer.weight.grad, native.weight.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.feedback.grad, of_b, rtol=1e-9, atol=1e-11)
    assert (layer.feedback.grad - plain).norm() > 1e-3 * plain.norm()


@pytest.mark.parametrize("options", [BIASED[4], BIASED[7]], ids=["relu", "normalised"])
def test_options_under_autocast_and_in_compiled_code(options):
    native, x = CASES["conv2d-oblong"].build().float(), CASES["conv2d-oblong"].input().float()
    net = transport_free(torch.nn.Sequential(native), "sum", update_forward="yes", **RULES["sum"], **options)
    exact = transport_free(torch.nn.Sequential(native).double(), "sum", update_forward="yes", **RULES["sum"], **options)
    exact.load_state_dict(net.state_dict())
    exact(x.double()).square().mean().backward()

    def close(tolerance):
        for p, q in zip(net.parameters(), exact.parameters(), strict=True):
            assert (p.grad - q.grad).norm() < tolerance * q.grad.norm()
            p.grad = None

    torch.compile(net, backend="aot_eager", fullgraph=True)(x).square().mean().backward()
    close(1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(x).float().square().mean()
    loss.backward()
    close(0.05)


def test_a_sum_without_a_product_of_w_reads_the_output_only_for_its_options():
    native, x = CASES["linear"].build(), CASES["linear"].input()
    for options in ({"bias": "both"}, {"activation_backward": "tanh"}):
        layer = transport_free(native, "sum", sparse=0.5, **options)
        layer(x).sum().backward()
        _, of_b = expected(native, x, layer, sparse=0.5, **options)
        torch.testing.assert_close(layer.feedback.grad, of_b, rtol=1e-9, atol=1e-11)
    assert rule("sum", sparse=0.5).shares == frozenset()


@pytest.mark.parametrize("options", [*STANDARD, *BIASED], ids=lambda given: "-".join(given.values()))
def test_options_of_terms_that_a_schedule_has_brought_to_zero(options):
    native, x = CASES["linear"].build(), CASES["linear"].input()
    layer = transport_free(native, "sum", decay=0.2, self=0.4, **options)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.feedback.grad, 0.2 * layer.feedback - 0.4 * layer.weight)


def test_noise_may_pass_the_bias_and_an_activation():
    """Akrout et al.'s own mirror lets σ(W ξ + b) meet the noise; it has no law that the noise's variance gives."""
    native, x = CASES["linear"].build(), CASES["linear"].input()
    options = {"bias": "forward", "activation_forward": "sigmoid"}
    layer = transport_free(native, "wm", **options)
    torch.manual_seed(1)
    layer(x).sum().backward()
    torch.manual_seed(1)
    noise = torch.randn_like(x)
    wanted = 0.1 * layer.feedback - 0.1 * native(noise).sigmoid().T @ noise / len(x)
    torch.testing.assert_close(layer.feedback.grad, wanted.detach())
    signals = error_signals(layer, x, x, loss=lambda output, _: output.sum())["model"]
    assert "law" not in signals
    assert "law" in error_signals(transport_free(native, "wm"), x, x, loss=lambda output, _: output.sum())["model"]


def test_the_guard_sees_the_signals_as_the_rule_does():
    """H of a rule whose B x has a bias and whose W x an activation is that of its law."""
    _, x, layer = trained("linear", "sum", bias="both", activation_forward="relu")
    law = error_signals(layer, x, x, loss=lambda output, _: output.square().sum())["model"]["law"]
    b = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    h_b = law.gradient(b.numpy()) - law.gradient(0 * b.numpy())
    layer.rule, layer.feedback.grad = layer.rule.homogeneous, None
    layer.feedback.data.copy_(b)
    layer(x).square().sum().backward()
    torch.testing.assert_close(layer.feedback.grad, torch.from_numpy(h_b), rtol=1e-9, atol=1e-10)
    Settings(rule="wm-reg", s_guard=True, coefficients={"bias": "forward", "activation_forward": "relu"})


def test_an_example_of_one_value_has_no_direction():
    layer = transport_free(CASES["linear"].build(), "wm-reg", normalise="all", decay=0.0, update_forward="yes")
    x = torch.ones(3, 5, dtype=torch.float64)
    layer(x).sum().backward()
    assert torch.equal(layer.feedback.grad, torch.zeros_like(layer.feedback))
    assert layer.weight.grad.isfinite().all()


def test_what_the_options_exclude_is_refused(tmp_path):
    for name, given, message in (
        ("ia", {"centre": "batch", "inputs": "noise"}, "ia: centre: noise has no mean to subtract, got centre='batch'"),
        ("ia", {"normalise": "all", "centre": "batch"}, "ia: normalise: centres each example too"),
        ("ia", {"normalise": "inputs", "inputs": "noise"}, "ia: normalise: is for activations, got 'inputs'"),
        ("ia", {"update_forward": "yes", "inputs": "noise"}, "ia: update_forward: is for activations, got 'yes'"),
        ("ia", {"update_forward": "maybe"}, "ia: update_forward: 'maybe' is not known"),
        ("ia", {"activation_forward": "gelu"}, "ia: activation_forward: 'gelu' is not known"),
        ("sa", {"bias": "forward"}, "sa: bias: no term of this rule has a projection, got 'forward'"),
        ("sa", {"centre": "batch"}, "sa: centre: no term of this rule has a projection, got 'batch'"),
        ("ia", {"bias": "both"}, "ia: bias: added to B x it changes nothing without sparse, activation_backward"),
    ):
        with pytest.raises(InputError, match=message):
            rule(name, **given)
    for given in ({"normalise": "all"}, {"activation_backward": "relu"}, {"inputs": "noise", "bias": "forward"}):
        with pytest.raises(InputError, match="s_guard: there is no step-size number with normalise='all'"):
            Settings(rule="wm-reg", s_guard=True, coefficients=given)
    with pytest.raises(InputError, match=r"^centre: the mean over a batch is not known where"):
        Training(Settings(rule="ia", coefficients={"centre": "batch"}, accumulate=2), tmp_path / "run")
    layer = transport_free(CASES["linear-3d"].build(), "ia", centre="examples")
    with pytest.raises(InputError, match=r"^ia: which axis counts the examples"):
        F.relu(layer(CASES["linear-3d"].input()))
    transport_free(CASES["linear-3d"].build(), "ia", bias="forward")(CASES["linear-3d"].input()).sum().backward()


def test_a_pair_that_descends_together_is_as_stable_as_theory_says():
    """Of one weight each, amp σ² > decay lets W = B grow by 1 + η (amp σ² − decay), and W = −B shrink."""
    one = torch.nn.Linear(1, 1, bias=False).double()
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    for name, held in (("wm-reg", {"decay": 0.2}), ("aa", {"sparse": 0.2})):  # sparse σ² holds W too
        layer = transport_free(one, name, amp=0.7, update_forward="yes", **held)
        for sign, rate in ((1, 0.7 - 0.2), (-1, -0.7 - 0.2)):
            layer.weight.data.fill_(1.0)
            layer.feedback.data.fill_(float(sign))
            layer.zero_grad()
            (0 * layer(x)).sum().backward()
            assert math.isclose(layer.weight.grad.item(), -rate)
            assert math.isclose(layer.feedback.grad.item(), -rate * sign)
