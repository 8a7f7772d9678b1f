"""Rules of Kunin et al. with centred activations, against their losses written out in float64."""

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


def centred(x, how):
    """Less the mean over the batch, or over each example."""
    return x - (x.mean(0) if how == "batch" else x.flatten(1).mean(1).view(-1, *(1,) * (x.dim() - 1)))


def regulariser(native, x, feedback, how, amp=0.0, null=0.0, decay=0.0, sparse=0.0, self=0.0):
    """The loss with the paper's terms: each projection is centred after it is made, under "examples" x before too."""
    x, function = seen(native, x)
    w = native.weight.detach()
    given = centred(x, how) if how == "examples" else x
    y = centred(function(given, w), how)
    down = adjoint(function, feedback, y, x)
    down = centred(down, how) if how == "examples" else down
    # Over a batch, the input of the backward projection is centred; of an example, its output.
    back = function(centred(x, how), feedback) if how == "batch" else centred(function(given, feedback), how)
    n = len(x) * uses(native, x, y)
    quadratic = null * down.square().sum() / 2 + sparse * back.square().sum() / 2
    total = (quadratic - amp * (given * down).sum()) / n
    return total + decay * feedback.square().sum() / 2 - self * (feedback * w).sum()


@pytest.mark.parametrize("case", ["linear", "linear-3d", "conv2d-oblong", "conv2d-depthwise", "transposed2d"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("how", ["batch", "examples"])
def test_centred_rules_descend_the_loss_that_is_written_out(how, name, case):
    native, x = CASES[case].build(), CASES[case].input()
    layer = transport_free(native, name, centre=how, batch_axis=0, **RULES[name])
    layer(x).square().sum().backward()
    feedback = layer.feedback.detach().clone().requires_grad_()
    regulariser(native, x, feedback, how, **RULES[name]).backward()
    torch.testing.assert_close(layer.feedback.grad, feedback.grad, rtol=1e-10, atol=1e-12)
    plain = transport_free(native, name, batch_axis=0, **RULES[name])
    plain.feedback.data.copy_(layer.feedback)
    plain(x).square().sum().backward()
    assert (plain.feedback.grad - layer.feedback.grad).norm() > 1e-3 * plain.feedback.grad.norm()
    law = error_signals(layer, x, x, loss=lambda output, _: output.square().sum())["model"]["law"]
    torch.testing.assert_close(torch.from_numpy(law.gradient(feedback.detach().numpy())), feedback.grad)
    assert law.channel() is None


def test_noise_is_not_centred_and_an_unknown_axis_is_asked_for(tmp_path):
    with pytest.raises(InputError, match=r"^ia: centre: noise has no mean to subtract, got centre='batch'$"):
        rule("ia", centre="batch", inputs="noise")
    with pytest.raises(InputError, match=r"^centre: the mean over a batch is not known where"):
        Training(Settings(rule="ia", coefficients={"centre": "batch"}, accumulate=2), tmp_path / "run")
    layer = transport_free(CASES["linear-3d"].build(), "ia", centre="examples")
    with pytest.raises(InputError, match=r"^ia: which axis counts the examples"):
        F.relu(layer(CASES["linear-3d"].input()))
