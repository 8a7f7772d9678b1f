"""One step: what it returns, and what a loss that is not finite does."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.step import Stepper, _first_non_finite


@pytest.fixture
def made():
    """A network, its stepper and a batch."""
    settings = Settings(
        rule="kp", depth=2, width=8, precision="float64", batch_norm=False, schedule="constant", warmup=0
    )
    model = build_network(settings, shape=(1, 4, 4), classes=3)
    learner = Learner(model, settings, total=10, epoch=5)
    torch.manual_seed(0)
    batch = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.arange(6) % 3
    return model, Stepper(model, learner, settings, torch.device("cpu")), batch


def weights(model):
    return [layer.weight.detach().clone() for _, layer in synapses(model)]


def test_result_is_what_the_batch_and_the_weights_say(made):
    model, stepper, (x, y) = made
    with torch.no_grad():
        output = model(x)
    result = stepper.take(0, x, y)
    assert result.loss == pytest.approx(F.cross_entropy(output, y).item(), rel=1e-14)
    assert result.accuracy == (output.argmax(1) == y).double().mean().item()
    sides = {
        side: [getattr(layer, side).detach().flatten() for _, layer in synapses(model)]
        for side in ("weight", "feedback")
    }
    assert result.forward_norm == pytest.approx(torch.cat(sides["weight"]).norm().item(), rel=1e-12)
    assert result.feedback_norm == pytest.approx(torch.cat(sides["feedback"]).norm().item(), rel=1e-12)
    assert result.non_finite == ""


@pytest.mark.parametrize("always", [False, True])
def test_a_loss_that_is_not_finite_moves_weights_only_where_that_is_asked_for(made, always):
    model, stepper, (x, y) = made
    before = weights(model)
    result = stepper.take(0, x * math.inf, y, always=always)
    assert not math.isfinite(result.loss)
    assert result.non_finite.startswith("norm of the weight of" if always else "loss")
    assert all(map(torch.equal, before, weights(model))) != always


def test_numbers_that_are_not_finite_are_traced_to_the_feedback_that_sent_them_down():
    layers = [nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)]
    model = transport_free(nn.Sequential(*layers), "sa")
    with torch.no_grad():
        model[1].feedback.fill_(math.nan)
        model[0].weight.fill_(math.nan)
    assert _first_non_finite(model) == "norm of the feedback of 1"
    with torch.no_grad():
        model[1].weight.fill_(math.nan)  # and what spread up in the step that followed
    assert _first_non_finite(model) == "norm of the weight of 0"
