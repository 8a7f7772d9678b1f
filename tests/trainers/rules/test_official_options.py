"""Options of Kunin et al.'s code, W's own descent and normalised signals, against the losses written out in float64."""

import math

import pytest
import torch

from tests.trainers.layer_cases import CASES, adjoint, seen, uses
from tests.trainers.rules.test_centring import RULES, centred
from wtdiag.probes.errors import InputError
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import rule

LAYERS = ["linear", "linear-3d", "conv2d-oblong", "conv2d-depthwise", "transposed2d"]
SA = {"sa": {"decay": 0.2, "self": 0.4}}


def changed(x, how):
    """A signal or a projection as an option wants it."""
    if how == "none":
        return x
    x = centred(x, how if how == "batch" else "examples")
    if how in ("batch", "examples"):
        return x
    return x / x.flatten(1).norm(dim=1).view(-1, *(1,) * (x.dim() - 1))


def regulariser(native, x, w, feedback, how, amp=0.0, null=0.0, decay=0.0, sparse=0.0, self=0.0):
    """The loss with the paper's terms as a function of W and B; W decays too."""
    x, function = seen(native, x)
    given = changed(x, how if how != "inputs" else "all") if how != "batch" else x
    after = "none" if how == "inputs" else how
    y = changed(function(given, w), after)
    down = adjoint(function, feedback, y, x)
    down = changed(down, after) if how != "batch" else down
    back = function(centred(x, how), feedback) if how == "batch" else changed(function(given, feedback), after)
    n = len(x) * uses(native, x, y)
    quadratic = null * down.square().sum() / 2 + sparse * back.square().sum() / 2
    total = (quadratic - amp * (given * down).sum()) / n
    squares = feedback.square().sum() + (w.square().sum() if w.requires_grad else 0)
    return total + decay * squares / 2 - self * (feedback * w).sum()


def options(how):
    return {"normalise": how} if how in ("inputs", "all") else {"centre": how}


def trained(case, name, **given):
    native, x = CASES[case].build(), CASES[case].input()
    layer = transport_free(native, name, batch_axis=0, **(RULES | SA)[name], **given)
    layer(x).square().sum().backward()
    return native, x, layer


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("name", [*RULES, "sa"])
@pytest.mark.parametrize("how", ["none", "batch", "examples", "inputs", "all"])
def test_w_and_b_descend_the_loss_that_is_written_out(how, name, case):
    native, x, layer = trained(case, name, update_forward="yes", **options(how))
    native(x).square().sum().backward()
    feedback = layer.feedback.detach().clone().requires_grad_()
    w = layer.weight.detach().clone().requires_grad_()
    regulariser(native, x, w, feedback, how, **(RULES | SA)[name]).backward()
    torch.testing.assert_close(layer.feedback.grad, feedback.grad, rtol=1e-9, atol=1e-11)
    of_w = layer.weight.grad - native.weight.grad
    torch.testing.assert_close(of_w, w.grad, rtol=1e-9, atol=1e-8)  # the task's gradient is large
    assert w.grad.norm() > 0.01
    signals = error_signals(layer, x, x, loss=lambda output, _: output.square().sum())["model"]
    torch.testing.assert_close(torch.from_numpy(signals["forward_gradient"]), layer.weight.grad, rtol=1e-9, atol=1e-8)
    assert ("law" in signals) == (how != "all")  # B's gradient is not affine there
    if how != "all":
        torch.testing.assert_close(
            torch.from_numpy(signals["law"].gradient(feedback.detach().numpy())), feedback.grad, rtol=1e-7, atol=1e-8
        )
        assert how == "none" or signals["law"].channel() is None


@pytest.mark.parametrize("how", ["inputs", "all"])
def test_normalised_signals_change_b_alone(how):
    native, x, layer = trained("conv2d-oblong", "ia", normalise=how)
    _, _, plain = trained("conv2d-oblong", "ia")
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    native(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, native.weight.grad, rtol=1e-10, atol=1e-10)
    assert layer.rule.update_forward == "no"


def test_an_example_of_one_value_has_no_direction():
    layer = transport_free(CASES["linear"].build(), "wm-reg", normalise="all", decay=0.0, update_forward="yes")
    x = torch.ones(3, 5, dtype=torch.float64)
    layer(x).sum().backward()
    assert torch.equal(layer.feedback.grad, torch.zeros_like(layer.feedback))
    assert layer.weight.grad.isfinite().all()


def test_what_the_options_exclude_is_refused():
    for given, message in (
        ({"normalise": "all", "centre": "batch"}, "ia: normalise: centres each example too"),
        ({"normalise": "inputs", "inputs": "noise"}, "ia: normalise: is for activations, got 'inputs'"),
        ({"update_forward": "yes", "inputs": "noise"}, "ia: update_forward: is for activations, got 'yes'"),
        ({"update_forward": "maybe"}, "ia: update_forward: 'maybe' is not known"),
    ):
        with pytest.raises(InputError, match=message):
            rule("ia", **given)
    with pytest.raises(InputError, match="s_guard: there is no step-size number where normalise='all'"):
        Settings(rule="wm-reg", s_guard=True, coefficients={"normalise": "all"})


def test_a_pair_that_descends_together_is_as_stable_as_theory_says():
    """Of one weight each, amp σ² > decay lets W = B grow by 1 + η (amp σ² − decay), and W = −B shrink."""
    layer = transport_free(
        torch.nn.Linear(1, 1, bias=False).double(), "wm-reg", amp=0.7, decay=0.2, update_forward="yes"
    )
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    for sign, rate in ((1, 0.7 - 0.2), (-1, -0.7 - 0.2)):
        layer.weight.data.fill_(1.0)
        layer.feedback.data.fill_(float(sign))
        layer.zero_grad()
        (0 * layer(x)).sum().backward()
        assert math.isclose(layer.weight.grad.item(), -rate)
        assert math.isclose(layer.feedback.grad.item(), -rate * sign)
