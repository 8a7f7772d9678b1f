"""The training step: who moves, by how much."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.trainers.loop.small_network import X, Y, make, run
from wtdiag.trainers.config.build import build_network
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import feedback_parameters, synapses, transport_free
from wtdiag.trainers.loop.learner import Learner


def moved(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_matches_a_hand_written_loop():
    model, learner = make("ia", lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True, clip_norm=0.3)
    twin = copy.deepcopy(model)
    matrices = [p for n, p in twin.named_parameters() if n.endswith("weight") and p.dim() > 1]
    vectors = [p for n, p in twin.named_parameters() if p.dim() == 1]
    feedback = list(feedback_parameters(twin).values())
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors}]
    forward = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    backward = torch.optim.Adam(feedback, lr=0.005)
    for _ in range(5):
        twin.zero_grad()
        F.cross_entropy(twin(X), Y).backward()
        nn.utils.clip_grad_norm_(matrices + vectors, 0.3)
        forward.step()
        backward.step()
    run(model, learner, 5)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.3}, {"nesterov": True}, {"clip_norm": 0.5}])
def test_kolen_pollack_contracts_under_any_recipe(options):
    model, learner = make("kp", lr=0.05, coefficients={"decay": 0.4}, **options)
    gaps = []
    for step in range(60):
        gaps.append(sum((layer.weight - layer.feedback).norm().item() ** 2 for _, layer in synapses(model)))
        run(model, learner, 1, step)
    assert gaps[-1] < 1e-2 * gaps[0]


def test_clipping_scales_feedback_that_shares_the_steps_by_the_norm_of_the_forward_gradients():
    model, learner = make("kp", lr=0.05, momentum=0.0, clip_norm=0.01, coefficients={"decay": 0.4})
    start = [(layer.weight - layer.feedback).detach().clone() for _, layer in synapses(model)]
    learner.begin(0)
    F.cross_entropy(model(X), Y).backward()
    norm = nn.utils.get_total_norm([p.grad for p in learner.forward if p.grad is not None]).item()
    assert norm > 0.1
    learner.step(0)
    for before, (_, layer) in zip(start, synapses(model), strict=True):
        now = (layer.weight - layer.feedback).detach()
        torch.testing.assert_close(now, before * (1 - 0.05 * 0.4 * 0.01 / norm), rtol=1e-6, atol=1e-12)


def test_kolen_pollack_contracts_exactly_with_plain_sgd():
    model, learner = make("kp", lr=0.05, momentum=0.0, coefficients={"decay": 0.4})
    layer = model[6]
    start = (layer.weight - layer.feedback).detach().clone()
    run(model, learner, 30)
    torch.testing.assert_close(layer.weight - layer.feedback, start * (1 - 0.05 * 0.4) ** 30, rtol=1e-10, atol=1e-12)


def test_delay_moves_feedback_alone():
    model, learner = make("sa", delay=0.5)
    before = copy.deepcopy(model.state_dict())
    run(model, learner, 5)
    assert {name.rpartition(".")[2] for name in moved(model, before) if "running" not in name} == {
        "feedback", "num_batches_tracked",
    }  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    run(model, learner, 1, 5)
    assert {"0.weight", "0.feedback"} <= moved(model, before)


@pytest.mark.parametrize("phases", [{"delay": 1.0}, {"alternate": 2}])
def test_kolen_pollack_contracts_while_the_forward_weights_wait(phases):
    model, learner = make("kp", lr=0.05, momentum=0.0, coefficients={"decay": 0.4}, **phases)
    layer = model[6]
    start = (layer.weight - layer.feedback).detach().clone()
    run(model, learner, 15)
    torch.testing.assert_close(layer.weight - layer.feedback, start * (1 - 0.05 * 0.4) ** 15, rtol=1e-10, atol=1e-12)


def test_warm_up_and_schedule_begin_after_the_delay():
    chosen = Settings(rule="sa", warmup=0.5, schedule="cosine", delay=1.0, lr=1.0)
    net = transport_free(nn.Linear(6, 3).double(), chosen.rule_at(0.0, 0.0))
    learner = Learner(net, chosen, total=30, epoch=10)
    plain = Learner(net, Settings(rule="sa", warmup=0.5, schedule="cosine", lr=1.0), total=20, epoch=10)
    assert [learner.rates(step)[0] for step in range(10, 30)] == [plain.rates(step)[0] for step in range(20)]


def test_alternate_takes_turns():
    model, learner = make("sa", alternate=2)
    assert [learner.phase(step) for step in range(6)] == ["task", "task", "feedback"] * 2
    for step in range(6):
        before = copy.deepcopy(model.state_dict())
        run(model, learner, 1, step)
        changed = moved(model, before)
        assert ("0.weight" in changed) == (learner.phase(step) == "task")
        assert ("0.feedback" in changed) == (learner.phase(step) == "feedback")


@pytest.mark.parametrize("where", ["forward", "feedback", "both"])
def test_update_noise_has_its_size_and_place(where):
    _, learner = make(
        "sa", lr=0.0, feedback_lr=0.5, update_noise=0.3, noise_on=where, coefficients={"self": 0.0, "decay": 0.0}
    )
    learner.optimizers = {}  # nothing but noise
    learner.rates = lambda step: (0.2, 0.5)
    big = torch.zeros(400, 400, dtype=torch.float64)
    learner.weights, learner.feedback = [big.clone()], [big.clone()]
    learner.step(0)
    for tensor, rate, named in ((learner.weights[0], 0.2, "forward"), (learner.feedback[0], 0.5, "feedback")):
        expected = rate * 0.3 if where in (named, "both") else 0.0
        assert tensor.std().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("where", ["forward", "feedback", "both"])
def test_relative_noise_is_a_share_of_the_update_of_w(where):
    _, learner = make("sa", relative_noise=0.3, noise_on=where)
    weight, feedback = (nn.Parameter(torch.zeros(400, 400, dtype=torch.float64)) for _ in range(2))
    weight.grad, feedback.grad = torch.full_like(weight, 0.5), torch.full_like(weight, 0.5)
    learner.weights, learner._feedback_of = [weight], {weight: feedback}
    learner.optimizers = {"forward": torch.optim.SGD([weight]), "feedback": torch.optim.SGD([feedback])}
    learner.rates = lambda step: (0.05, 2.0)
    learner.step(0)
    for tensor, rate, named in ((weight, 0.05, "forward"), (feedback, 2.0, "feedback")):
        noise = (tensor + 0.5 * rate).detach()
        assert noise.std().item() == pytest.approx(0.3 * 0.5 * 0.05 if where in (named, "both") else 0.0, rel=0.02)


def test_relative_noise_does_not_depend_on_how_the_same_steps_are_parametrised():
    """Noise in units of the learning rate costs such runs of sa −2.3 to 32.2 points."""
    ways = [(1.0, 0.2), (0.05, 4.0), (0.002, 100.0)]
    ends = []
    for feedback_lr, strength in ways:
        coefficients = {"self": strength, "decay": strength}
        model, learner = make("sa", relative_noise=0.5, feedback_lr=feedback_lr, coefficients=coefficients)
        torch.manual_seed(1)
        run(model, learner, 30)
        ends.append([p.detach().clone() for p in model.parameters()])
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=1e-9, atol=1e-12)


def test_fixed_feedback_never_moves():
    model, learner = make("fa", weight_decay=0.5, update_noise=1.0)
    before = model[0].feedback.clone()
    run(model, learner, 3)
    assert torch.equal(model[0].feedback, before)


def test_feedback_can_share_the_forward_optimiser():
    model, learner = make("sa", feedback_optimizer="forward")
    assert list(learner.optimizers) == ["forward"]
    before = model[0].feedback.clone()
    run(model, learner, 1)
    assert not torch.equal(model[0].feedback, before)
    assert learner.rates(0) == (0.05, 0.05)


@pytest.mark.parametrize(
    ("model", "batch_norm", "lr"),
    [("mlp", True, 0.05), ("conv", True, 0.2), ("conv", False, 0.05), ("resnet8", True, 0.2)],
)
def test_the_default_rate_depends_on_the_kind_of_network(model, batch_norm, lr):
    settings = Settings(rule="fa", model=model, batch_norm=batch_norm, width=4)
    network = build_network(settings, shape=(1, 8, 8), classes=3)
    assert Learner(network, settings, total=10, epoch=5).lr == lr
    assert Learner(network, dataclasses.replace(settings, lr=0.3), total=10, epoch=5).lr == 0.3
