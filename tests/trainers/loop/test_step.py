"""One step: what it returns, and where its metrics are read."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop import fit
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.metrics import StepResult, UnreadMetrics, norms
from wtdiag.trainers.loop.step import Stepper
from wtdiag.trainers.rules import RULES


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
    return model, Stepper(model, learner, settings, torch.device("cpu")), batch, UnreadMetrics(model, learner)


def test_result_is_what_the_batch_and_the_weights_say(made):
    model, stepper, (x, y), unread = made
    with torch.no_grad():
        output = model(x)
    unread.add(1, stepper.take(0, x, y))
    unread.add(2, stepper.take(1, x, y))
    result = unread.read()[0]
    assert result.step == 1
    assert result.loss == pytest.approx(F.cross_entropy(output, y).item(), rel=1e-14)
    assert result.accuracy == (output.argmax(1) == y).double().mean().item()
    assert result.non_finite == ""
    assert unread.read() == []


def test_norms_are_those_of_all_weights_together(made):
    model, stepper, (x, y), unread = made
    taken = stepper.take(0, x, y)
    assert not any(tensor.requires_grad for tensor in (taken.loss, taken.accuracy, *taken.norms))  # no graph is held
    unread.add(1, taken)
    (result,) = unread.read()
    sides = {
        side: [getattr(layer, side).detach().flatten() for _, layer in synapses(model)]
        for side in ("weight", "feedback")
    }
    assert result.forward_norm == pytest.approx(torch.cat(sides["weight"]).norm().item(), rel=1e-12)
    assert result.feedback_norm == pytest.approx(torch.cat(sides["feedback"]).norm().item(), rel=1e-12)
    assert result.forward_norm == torch.nn.utils.get_total_norm(stepper._learner.weights).item()


def test_a_loss_that_is_not_finite_is_named_when_it_is_read(made):
    _, stepper, (x, y), unread = made
    for step, factor in enumerate((1.0, math.inf, 1.0)):
        unread.add(step + 1, stepper.take(step, factor * x, y))
    assert [(each.step, each.non_finite) for each in unread.read()] == [(1, ""), (2, "loss"), (3, "loss")]


def test_numbers_that_are_not_finite_are_traced_to_the_feedback_that_sent_them_down():
    model = build_network(Settings(rule="sa", depth=3, width=4), shape=(1, 2, 2), classes=2)
    learner = Learner(model, Settings(rule="sa"), total=10, epoch=5)
    unread, result = UnreadMetrics(model, learner), torch.zeros((), dtype=torch.float64)

    def read():
        unread.add(1, StepResult(result, result, norms(learner.weights), norms(learner.feedback)))
        return unread.read()[0].non_finite

    assert read() == ""
    with torch.no_grad():
        model.fc2.feedback.fill_(math.nan)
        model.fc1.weight.fill_(math.nan)
    assert read() == "norm of the feedback of fc2"
    with torch.no_grad():
        model.fc2.weight.fill_(math.nan)  # and what spread up in the step that followed
    assert read() == "norm of the weight of fc1"


class Reads(TorchDispatchMode):
    """Counts what waits for a device if there is one: values that come to Python, and shapes that depend on values."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.__name__.split(".")[0] in self.WAITING
        return function(*args, **(kwargs or {}))

    def counted(self, method):
        def call(*args, **options):
            self.count += 1
            return method(*args, **options)

        return call


SGD = {"feedback_optimizer": "sgd", "feedback_lr": 0.001}


@pytest.mark.parametrize(
    "settings",
    [
        *({"rule": rule} for rule in RULES),
        {"rule": "ia", "s_guard": True, **SGD},
        {"rule": "sa", "relative_noise": 0.1, "alternate": 2, **SGD},
        {"rule": "kp", "update_noise": 0.1, "clip_norm": 1.0, "optimizer": "adamw"},
        {"rule": "wm-reg", "model": "conv", "coefficients": {"amp": "linear:0.1:0.2"}, "data": "digits"},
    ],
    ids=lambda settings: " ".join(f"{name}" if name != "rule" else value for name, value in settings.items()),
)
def test_no_step_waits_for_the_device_between_two_readings(settings, tmp_path, monkeypatch):
    reads = Reads()
    for name in ("tolist", "numpy", "cpu"):  # these leave no trace where the tensor is on the CPU
        monkeypatch.setattr(torch.Tensor, name, reads.counted(getattr(torch.Tensor, name)))
    training = Training(Settings(width=8, depth=3, epochs=2.0, snapshots=2, **settings), tmp_path / "run")
    training.begin()
    waited = []
    steps = iter(training)
    for step in range(1, 27):
        before = reads.count
        with reads:
            next(steps)
        if reads.count > before:
            waited.append(step)
    steps.close()
    # Kolen-Pollack's updates of W and B are compared at the optimiser's steps 1, 2, 4, 8 and so on.
    compared = [2**power for power in range(5)] if settings["rule"] == "kp" else []
    assert set(waited) - set(compared) == {1, 23, *range(fit.INTERVAL, 27, fit.INTERVAL)} - set(compared)


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_in_pieces_gives_the_same_weights(rule, monkeypatch):
    monkeypatch.setattr(torch, "randn_like", lambda x: (7 * x).sin())  # in a mirror phase, a function of the example
    trained = []
    for pieces in (2 if rule == "brsf" else 1, 3):  # in pieces, B is drawn by other numbers
        settings = Settings(rule=rule, depth=2, width=8, precision="float64", batch_norm=False, accumulate=pieces)
        model = build_network(settings, shape=(1, 4, 4), classes=3)
        stepper = Stepper(model, Learner(model, settings, total=9, epoch=5), settings, torch.device("cpu"))
        numbers = torch.Generator().manual_seed(0)
        for step in range(4):
            x = torch.randn(10, 1, 4, 4, dtype=torch.float64, generator=numbers)
            stepper.take(step, x, torch.arange(10) % 3)
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=0, atol=1e-12)
