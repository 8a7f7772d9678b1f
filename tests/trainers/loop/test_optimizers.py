"""Every optimiser of the table: what it moves, that it goes on bitwise, and what is known of its steps."""

import copy
import io
import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.trainers.loop.small_network import X, Y, make, run
from wtdiag.probes import Quantities
from wtdiag.probes.records.optimizers import OPTIMIZERS
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import feedback_parameters, synapses, transport_free
from wtdiag.trainers.layers.operations import Dense
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.optimizer_classes import build
from wtdiag.trainers.observe.laws import Law, Use
from wtdiag.trainers.observe.rates import decay_in_gradient
from wtdiag.trainers.rules import rule

CLASSES = {
    "radam": torch.optim.RAdam, "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
}  # fmt: skip


def equal(one, two):
    return all(torch.equal(p, q) for p, q in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_w_and_b_take_the_steps_of_pytorchs_optimiser(kind):
    given = {"lr": 0.01, "feedback_lr": 0.02, "weight_decay": 0.1}
    model, learner = make(optimizer=kind, feedback_optimizer=kind, **given)
    twin = copy.deepcopy(model)
    learned = {id(p) for p in feedback_parameters(twin).values()}
    forward = [p for p in twin.parameters() if id(p) not in learned]
    groups = [
        {"params": [p for p in forward if p.dim() > 1], "lr": 0.01, "weight_decay": 0.1},
        {"params": [p for p in forward if p.dim() < 2], "lr": 0.01, "weight_decay": 0.0},
        {"params": [p for p in twin.parameters() if id(p) in learned], "lr": 0.02, "weight_decay": 0.0},
    ]
    optimizer = CLASSES[kind](groups)
    for _ in range(4):
        twin.zero_grad()
        F.cross_entropy(twin(X), Y).backward()
        optimizer.step()
    run(model, learner, 4)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)


def test_muon_moves_matrices_and_kernels_and_adamw_the_rest():
    model, learner = make(optimizer="muon", feedback_optimizer="muon", lr=0.01, feedback_lr=0.02, weight_decay=0.1)
    twin = copy.deepcopy(model)
    weights, biases = ([p for n, p in twin.named_parameters() if n.endswith(end)] for end in ("weight", "bias"))
    norm = [twin[1].weight, *biases]
    weights = [p for p in weights if p.dim() > 1]
    flat = {p: nn.Parameter(p.detach().flatten(1)) for p in (*weights, *feedback_parameters(twin).values())}
    groups = [{"params": [flat[p] for p in weights], "lr": 0.01, "weight_decay": 0.1}]
    groups += [{"params": [flat[p] for p in feedback_parameters(twin).values()], "lr": 0.02, "weight_decay": 0.0}]
    muon = torch.optim.Muon(groups, adjust_lr_fn="match_rms_adamw")
    others = torch.optim.AdamW(norm, lr=0.01, weight_decay=0.0)
    for _ in range(3):
        twin.zero_grad()
        F.cross_entropy(twin(X), Y).backward()
        for p, matrix in flat.items():
            matrix.grad = p.grad.flatten(1)
        muon.step()
        others.step()
        for p, matrix in flat.items():
            p.detach().copy_(matrix.detach().view_as(p))
    run(model, learner, 3)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)


def test_muon_leaves_embeddings_to_adamw():
    model = transport_free(nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3)), "fa", batch_axis=0)
    learner = Learner(model, Settings(rule="fa", optimizer="muon"), total=10, epoch=5)
    held = {key: [p for g in one.param_groups for p in g["params"]] for key, one in learner.optimizers.items()}
    assert {id(p) for p in held["forward"]} == {id(model[2].weight)}
    assert {id(p) for p in held["others"]} == {id(model[0].weight), id(model[2].bias)}
    assert learner.optimizers["others"].param_groups[0]["params"] == [model[0].weight]  # which may decay


def test_muon_takes_kernels_in_any_memory_format():
    drawn = torch.Generator().manual_seed(1)
    plain = nn.Parameter(torch.randn(4, 3, 2, 2, generator=drawn))
    last = nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    for kernels in (plain, last):
        kernels.grad = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2)).to(
            memory_format=torch.channels_last if kernels is last else torch.contiguous_format
        )
        muon = build("muon", [{"params": [kernels]}])
        muon.param_groups[0]["lr"] = 0.1
        muon.step()
    torch.testing.assert_close(plain, last, rtol=0, atol=2e-3)  # Muon computes in bfloat16


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.filterwarnings("ignore:kp.* moves W and B differently")
def test_goes_on_bitwise(kind, shared):
    def anew():
        if shared:
            return make("kp", optimizer=kind, weight_decay=0.1)
        return make("sa", optimizer=kind, feedback_optimizer=kind, feedback_lr=0.01, weight_decay=0.1)

    whole, learner = anew()
    run(whole, learner, 7)
    first, learner = anew()
    run(first, learner, 3)
    stored = io.BytesIO()
    torch.save({"model": first.state_dict(), "learner": learner.state_dict()}, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    second, learner = anew()
    second.load_state_dict(state["model"])
    learner.load_state_dict(state["learner"])
    run(second, learner, 4, 3)
    assert equal(whole, second)
    assert not equal(whole, first)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_kolen_pollack_contracts_by_decoupled_decay_under_any_optimiser(kind):
    model, learner = make("kp", optimizer=kind, lr=0.02, weight_decay=0.5, coefficients={"decay": 0.0})
    before = [(layer.weight - layer.feedback).detach().clone() for _, layer in synapses(model)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, learner, 12)
    for gap, (_, layer) in zip(before, synapses(model), strict=True):
        torch.testing.assert_close(layer.weight - layer.feedback, gap * (1 - 0.02 * 0.5) ** 12, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", sorted(set(OPTIMIZERS) - {"sgd"}))
def test_kolen_pollack_says_where_its_own_decay_does_not_contract(kind):
    model, learner = make("kp", optimizer=kind, lr=0.02)
    with pytest.warns(UserWarning, match="moves W and B differently, so W − B need not decay") as said:
        run(model, learner, 8)  # the first of RAdam are proportional to the gradient
    assert {str(each.message).partition("(")[0] for each in said} == {"kp: Conv2d", "kp: Linear"}


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_measures_of_steps_are_known_only_where_a_theory_holds(kind):
    w = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    use = Use(rule("sa", decay=0.5, self=1.0), Dense(), torch.ones(4, 2, dtype=torch.float64), w, 1)
    law = Law((use,), examples=4, lr=0.1, optimizer=kind)
    measured = Quantities(forward=w.numpy(), feedback=np.ones((2, 2)), law=law)
    of = {"sgd": ("step_size_number", "relaxation_time", "relative_step"), "adam": ("relative_step", "travel_time")}
    known = of.get(OPTIMIZERS[kind].theory, ())
    for name in ("mean_step_size_number", "step_size_number", "relaxation_time", "relative_step", "travel_time"):
        assert math.isfinite(measured[name]) == (name.removeprefix("mean_") in known), name
    assert math.isnan(measured["predicted_noise_angle"]) or OPTIMIZERS[kind].theory
    assert measured["predicted_gain"] == pytest.approx(2.0)  # where B comes to rest does not depend on it


def test_a_decoupled_decay_of_feedback_leaves_no_known_resting_point():
    sa, kp = rule("sa"), rule("kp")
    assert [decay_in_gradient(kind, 0.1, sa) for kind in ("sgd", "rmsprop")] == [0.1, 0.1]
    assert all(math.isnan(decay_in_gradient(kind, 0.1, sa)) for kind in ("adamw", "muon"))
    assert decay_in_gradient("muon", 0.1, kp) == decay_in_gradient("muon", 0.0, sa) == 0.0
    w = torch.eye(2, dtype=torch.float64)
    law = Law((Use(sa, Dense(), torch.ones(4, 2).double(), w, 1),), examples=4, weight_decay=math.nan)
    assert math.isnan(Quantities(forward=w.numpy(), feedback=np.ones((2, 2)), law=law)["predicted_gain"])


def test_the_table_names_what_is_built():
    matrix = nn.Parameter(torch.ones(2, 2))
    for kind, facts in OPTIMIZERS.items():
        built = build(kind, [{"params": [matrix]}])
        assert type(built) is getattr(torch.optim, facts.title)
