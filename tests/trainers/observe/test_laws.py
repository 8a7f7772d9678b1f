"""The laws of learning against real backward passes and against dense matrices; operators against their layers."""

import copy
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainers.layer_cases import CASES, seen
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.observe.tracer import error_signals
from wtdiag.trainers.rules import RULES, curvature, rule

LEARNED = [name for name in RULES if RULES[name].learned and "error" not in RULES[name]().shares]
ACTIVE = {"amp": 0.07, "null": 0.03, "decay": 0.02, "sparse": 0.05, "self": 0.04}
FAITHFUL = {"aa": {}, "ia": {}, "sa": {}, "wm-reg": {}, "kp": {"decay": 0.3}, "sum": ACTIVE}
"""Rules that learn from what really passes, so that one backward pass has their gradient."""


def square(output, target):
    return output.square().sum()


def probed(model, x):
    """The signals of a batch under a loss that needs no targets."""
    return error_signals(model, x, torch.zeros(len(x)), loss=square)


def layer_of(case, name, **coefficients):
    chosen = CASES[case]
    model = transport_free(chosen.build(), rule(name, **coefficients), batch_axis=0)
    return model, chosen.input(), probed(model, chosen.input())["model"]


def dense(name, examples=40, shape=(4, 5), **coefficients):
    torch.manual_seed(0)
    model = transport_free(nn.Linear(shape[1], shape[0]).double(), rule(name, **coefficients))
    mixing = torch.randn(shape[1], shape[1], dtype=torch.float64)
    x = torch.randn(examples, shape[1], dtype=torch.float64).abs() @ mixing
    return model, x, probed(model, x)["model"]["law"]


def matrix_of(law, shape):
    """H column by column."""
    start = law.gradient(np.zeros(shape))
    units = np.eye(math.prod(shape)).reshape(-1, *shape)
    return np.stack([(law.gradient(unit) - start).ravel() for unit in units], axis=1)


# The mean gradient


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", [name for name in FAITHFUL if name != "kp"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_a_backward_pass(case, name, reduction):
    model, x, signals = layer_of(case, name, **FAITHFUL[name], reduction=reduction)
    square(model(x), None).backward()
    b = model.feedback.detach().numpy()
    np.testing.assert_allclose(signals["law"].gradient(b), model.feedback.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", ["linear", "conv2d"])
def test_kolen_pollack_s_is_what_is_left_where_the_weights_stand_still(case):
    model, x, signals = layer_of(case, "kp", decay=0.3)
    square(model(x), None).backward()
    w, b = (p.detach().numpy() for p in (model.weight, model.feedback))
    found = signals["law"].gradient(b)
    np.testing.assert_allclose(found, (model.feedback.grad - model.weight.grad).numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found, 0.3 * (b - w), rtol=1e-9, atol=1e-12)
    assert not signals["law"].noise(b, 3).any()


@pytest.mark.parametrize("case", ["linear", "conv2d-depthwise", "transposed2d"])
@pytest.mark.parametrize("name", LEARNED)
def test_every_learned_rule_is_affine_and_symmetric(name, case):
    _, _, signals = layer_of(case, name, **FAITHFUL.get(name, {}))
    law, generator = signals["law"], np.random.default_rng(0)
    a, b = generator.normal(size=(2, *CASES[case].build().weight.shape))
    start = law.gradient(np.zeros_like(a))
    h_a, h_b = law.gradient(a) - start, law.gradient(b) - start
    np.testing.assert_allclose(law.gradient(2 * a - 3 * b) - start, 2 * h_a - 3 * h_b, rtol=1e-9, atol=1e-10)
    assert np.vdot(a, h_b) == pytest.approx(np.vdot(h_a, b), rel=1e-9)
    assert np.vdot(a, h_a) >= 0
    np.testing.assert_array_equal(law.gradient(a), law.gradient(a))  # the same every time


def test_curvatures_are_those_of_the_theory():
    x = dense("sa")[1].numpy()
    w = dense("sa")[0].weight.detach().numpy()
    sigma = x.T @ x / len(x)
    of_inputs, of_outputs = np.kron(np.eye(4), sigma), np.kron(w @ sigma @ w.T, np.eye(5))
    both = {
        "wm-reg": ({"amp": 0.3, "decay": 0.5}, 0.5 * np.eye(20), 0.3 * w @ sigma),
        "sa": ({"self": 0.3, "decay": 0.5}, 0.5 * np.eye(20), 0.3 * w),
        "ia": ({"amp": 0.3, "null": 0.2, "decay": 0.5}, 0.2 * of_outputs + 0.5 * np.eye(20), 0.3 * w @ sigma),
        "aa": ({"amp": 0.3, "sparse": 0.2}, 0.2 * of_inputs, 0.3 * w @ sigma),
        "kp": ({"decay": 0.3}, 0.3 * np.eye(20), 0.3 * w),
        "ldrl": ({"amp": 0.3, "noise_std": 0.7}, 0.3 * 0.7**2 * np.eye(20), 0.3 * 0.7**2 * w),
        "pfa": ({"decay": 0.3, "left": "identity"}, 0.3 * np.eye(20), 0.3 * w),
        "ldfa": ({"decay": 0.3, "rank": 99}, 0.3 * np.eye(20), 0.3 * w),
        "wm": ({"amp": 0.3, "decay": 0.5, "noise_std": 0.7}, 0.5 * np.eye(20), 0.3 * 0.7**2 * w),
        "wm-live": ({"amp": 0.3, "decay": 0.5, "noise_std": 0.7}, 0.5 * np.eye(20), 0.3 * w),
    }  # fmt: skip
    assert set(both) | {"sum"} == set(LEARNED)
    for name, (coefficients, h, target) in both.items():
        law = dense(name, **coefficients)[2]
        np.testing.assert_allclose(matrix_of(law, w.shape), h, rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(-law.gradient(np.zeros(w.shape)), target, rtol=1e-9, atol=1e-12, err_msg=name)


# Noise as input


UNPADDED = [
    name for name in CASES if not any(word in name for word in ("same-even", "reflect", "circular", "replicate"))
]


def over_all_noise(make, x, feedback, **coefficients):
    """The expected gradient as a sum over every single entry of the map: exact for what is quadratic in the noise."""
    size = math.prod(x.shape[1:])
    units = 0.7 * size**0.5 * torch.eye(size, dtype=torch.float64).view(size, *x.shape[1:])
    twin = transport_free(make(), rule("sum", **coefficients), batch_axis=0)
    with torch.no_grad():
        twin.feedback.copy_(feedback)
    square(twin(units), None).backward()
    return twin.feedback.grad.numpy()


@pytest.mark.parametrize("case", UNPADDED)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_noise_is_averaged_out(case, reduction):
    coefficients = ACTIVE | {"null": 0.0 if "conv" in case or "trans" in case else 0.03, "reduction": reduction}
    model, x, signals = layer_of(case, "sum", inputs="noise", noise_std=0.7, **coefficients)
    expected = over_all_noise(CASES[case].build, seen(model, x)[0], model.feedback, **coefficients)
    found = signals["law"].gradient(model.feedback.detach().numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_noise_that_meets_itself_across_a_map_is_nearly_averaged_out():
    def make():
        torch.manual_seed(0)
        return nn.Conv2d(6, 8, 3, padding=1).double()

    x = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    model = transport_free(make(), rule("sum", inputs="noise", noise_std=0.7, null=1.0))
    expected = over_all_noise(make, x, model.feedback, null=1.0)
    found = probed(model, x)["model"]["law"].gradient(model.feedback.detach().numpy())
    assert np.linalg.norm(found - expected) < 0.12 * np.linalg.norm(expected)


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_noise_drawn_in_training_has_that_mean_and_scatter(noise):
    given = {"inputs": "noise", "noise": noise, "noise_std": 0.7, **ACTIVE, "null": 0.0}
    model, x, signals = layer_of("conv2d", "sum", **given)
    law, b = signals["law"], model.feedback.detach().numpy()
    torch.manual_seed(0)
    drawn = []
    for _ in range(1500):
        model.feedback.grad = None
        square(model(x), None).backward()
        drawn.append(model.feedback.grad.numpy().copy())
    drawn = np.array(drawn)
    errors = (drawn.mean(axis=0) - law.gradient(b)) / (drawn.std(axis=0) / len(drawn) ** 0.5)
    assert np.sqrt(np.mean(errors**2)) < 1.35  # 108 entries: by chance 1.0 ± 0.07
    assert np.mean(law.noise(b, 600) ** 2) == pytest.approx(np.mean(drawn.var(axis=0)), rel=0.15)


# The noise of minibatches


def test_minibatch_noise_has_the_covariance_of_the_mean_of_a_batch():
    _, x, law = dense("ia", examples=30)
    b = np.random.default_rng(1).normal(size=(4, 5))
    single = [dense_gradient("ia", one, b) for one in x]
    covariance = np.cov(np.array(single).reshape(len(x), -1), rowvar=False)
    samples = law.noise(b, 4000).reshape(4000, -1)
    found = samples.T @ samples / len(samples)
    assert np.linalg.norm(found - covariance / len(x)) < 0.1 * np.linalg.norm(covariance / len(x))
    assert np.trace(found) == pytest.approx(np.trace(covariance) / len(x), rel=0.05)


def dense_gradient(name, one, b):
    """The rule's gradient on one example, from a layer of its own."""
    model, _, _ = dense(name)
    with torch.no_grad():
        model.feedback.copy_(torch.from_numpy(b))
    square(model(one[None]), None).backward()
    return model.feedback.grad.numpy()


def test_smaller_batches_are_noisier_and_draws_are_the_same_every_time():
    _, _, law = dense("aa", examples=30)
    b = np.ones((4, 5))
    np.testing.assert_array_equal(law.noise(b, 3), law.noise(b, 3))
    np.testing.assert_allclose(replace(law, batch_size=120).noise(b, 3), law.noise(b, 3) / 2, rtol=1e-12)
    first, second, third = law.noise(b, 3)
    assert not np.allclose(first, second)
    assert not np.allclose(second, third)


def test_a_batch_of_one_says_nothing_about_noise():
    _, _, law = dense("aa", examples=1)
    assert np.isnan(law.noise(np.ones((4, 5)), 2)).all()


@pytest.mark.parametrize("name", ["sa", "wm-reg", "wm"])
def test_an_odd_batch_is_split(name):
    _, _, law = dense(name, examples=7)
    samples = law.noise(np.ones((4, 5)), 5)
    assert np.isfinite(samples).all()
    assert samples.any() == (name != "sa")  # whose gradient is the same for every batch


# Sharing, precision, and what stays as it was


class Shared(nn.Module):
    """One layer used twice, and another one with the same weights."""

    def __init__(self):
        super().__init__()
        self.first, self.twin, self.head = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.twin.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.twin(torch.tanh(self.first(torch.tanh(self.first(x)))))))


@pytest.mark.parametrize("name", ["ia", "sa", "sum"])
def test_shared_feedback_has_one_law(name):
    torch.manual_seed(0)
    model = transport_free(Shared().double(), rule(name, **(ACTIVE if name == "sum" else {})))
    x = torch.randn(6, 5, dtype=torch.float64)
    signals = probed(model, x)
    square(model(x), None).backward()
    for layer in ("first", "twin"):
        found = signals[layer]["law"].gradient(model.first.feedback.detach().numpy())
        np.testing.assert_allclose(found, model.first.feedback.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LEARNED)
def test_float64_is_kept_and_float32_is_not_made_more_of(name):
    torch.manual_seed(0)
    model = transport_free(nn.Linear(5, 4), rule(name))
    law = probed(model, torch.randn(6, 5))["model"]["law"]
    b = np.random.default_rng(0).normal(size=(4, 5))
    b.flags.writeable = False
    exact, single = law.gradient(b), law.gradient(b.astype(np.float32))
    assert (exact.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(single, exact, rtol=1e-4, atol=1e-6)
    # float64 resolves a difference that float32 does not.
    np.testing.assert_allclose(
        law.gradient(b + 1e-9) - exact, law.gradient(b + 1e-3) * 1e-6 - exact * 1e-6, rtol=1e-3, atol=1e-13
    )
    assert law.noise(b, 2).dtype == np.float64


def test_an_unbatched_input_is_a_batch_of_one():
    model, x, signals = layer_of("linear-unbatched", "ia")
    square(model(x), None).backward()
    found = signals["law"].gradient(model.feedback.detach().numpy())
    np.testing.assert_allclose(found, model.feedback.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LEARNED)
def test_asking_changes_nothing_and_outlives_the_next_step(name):
    model, _, signals = layer_of("conv2d", name)
    law, b = signals["law"], model.feedback.detach().numpy().copy()
    expected, noise = law.gradient(b), law.noise(b, 2)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with ThreadPoolExecutor(8) as pool:
        jobs = [(pool.submit(law.gradient, b), pool.submit(law.noise, b, 2)) for _ in range(20)]
    for gradient, drawn in jobs:
        np.testing.assert_array_equal(gradient.result(), expected)
        np.testing.assert_array_equal(drawn.result(), noise)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        model.weight.mul_(3.0)
    np.testing.assert_array_equal(law.gradient(b), expected)


@pytest.mark.parametrize("name", [name for name in RULES if not RULES[name].learned])
def test_feedback_that_does_not_learn_has_no_law(name):
    torch.manual_seed(0)
    x = torch.randn(3, 5)
    model = transport_free(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), rule(name), sample=x)
    signals = error_signals(model, x, torch.arange(3))
    assert signals.keys() == {"0", "1"}
    assert all("law" not in found for found in signals.values())


# The layer as an operator


@pytest.mark.parametrize("case", CASES)
def test_operators_are_their_layers(case):
    model, x, signals = layer_of(case, "fa")
    operator, (x, function) = signals["operator"], seen(model, x)
    assert operator.shape == tuple(x.shape[1:])
    for weight in (model.weight.detach(), model.feedback.detach()):
        y = function(x, weight)
        np.testing.assert_allclose(operator.apply(weight.numpy(), x.numpy()), y.numpy(), rtol=1e-12, atol=1e-12)
        error = torch.randn(y.shape, dtype=torch.float64)
        back = operator.adjoint(weight.numpy(), error.numpy())
        assert back.shape == x.shape
        assert np.vdot(back, x.numpy()) == pytest.approx(float((error * y).sum()), rel=1e-9)


@pytest.mark.parametrize(("w", "x"), list(itertools.product((np.float32, np.float64), repeat=2)))
def test_operators_keep_the_finer_precision(w, x):
    _, _, signals = layer_of("conv2d", "fa")
    operator = signals["operator"]
    weight, one = np.ones((4, 3, 3, 3), w), np.ones((1, 3, 6, 6), x)
    one.flags.writeable = False
    y = operator.apply(weight, one)
    assert y.dtype == np.result_type(w, x)
    assert operator.adjoint(weight, y).dtype == y.dtype


def test_the_layers_of_a_network_have_operators_of_their_map():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 3))
    model = transport_free(net, "fa")
    signals = probed(model, torch.randn(4, 1, 7, 7))
    shapes = {name: signals[name]["operator"].shape for name, _ in synapses(model)}
    assert shapes == {"0": (1, 7, 7), "1": (2, 3, 3), "3": (12,)}


def test_the_optimisers_decay_of_w_moves_no_fixed_point_of_kolen_pollack():
    model, _, law = dense("kp", decay=0.3)
    decayed = replace(law, weight_decay=0.1)
    w = model.weight.detach().numpy()
    np.testing.assert_allclose(decayed.gradient(w) + decayed.weight_decay * w, np.zeros_like(w), atol=1e-12)


# The curvature in closed form


@pytest.mark.parametrize(("inputs", "held"), [("activations", 1), ("noise", 2**24)])
@pytest.mark.parametrize("name", ["decay", "sparse", "null", "self"])
@pytest.mark.parametrize("case", CASES)
def test_the_closed_form_is_the_rules_own_gradient(case, name, inputs, held, monkeypatch):
    monkeypatch.setattr(curvature, "_PRODUCTS", 10**9)
    monkeypatch.setattr(curvature, "_HELD", held)
    law = layer_of(case, "sum", amp=0.3, inputs=inputs, **{name: 0.7})[2]["law"]
    (use,) = law.uses
    b = torch.randn(use.weight.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    start = use.gradient(torch.zeros_like(b))
    known = use.curvature(b)
    assert known is not None or case.endswith("unbatched") or name in ("sparse", "null")
    if known is not None:
        torch.testing.assert_close(known(b), use.gradient(b) - start, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.gradient(b.numpy()), use.gradient(b).numpy(), rtol=1e-10, atol=1e-12)


def test_the_closed_form_is_taken_where_it_is_cheaper():
    few, many = (dense("aa", examples=examples, shape=(30, 20))[2] for examples in (2, 400))
    b = torch.zeros(30, 20, dtype=torch.float64)
    assert few.uses[0].curvature(b) is None
    assert many.uses[0].curvature(b).right.shape == (1, 20, 20)


def test_a_rule_that_changes_its_gradient_is_asked_for_it():
    class Doubled(type(rule("sa"))):
        def feedback_grad(self, s):
            return 2 * super().feedback_grad(s)

    law = dense("sa", self=0.3, decay=0.5)[2]
    doubled = replace(law, uses=tuple(replace(use, rule=Doubled(self=0.3, decay=0.5)) for use in law.uses))
    b = np.random.default_rng(0).normal(size=law.uses[0].weight.shape)
    np.testing.assert_allclose(doubled.gradient(b), 2 * law.gradient(b), rtol=1e-12)


@pytest.mark.parametrize("case", ["linear-3d", "conv2d-valid", "conv2d-oblong", "transposed2d", "conv2d-depthwise"])
def test_noise_at_both_ends_has_its_exact_moments(case):
    """E[∂B] = amp · σ² (B − W), times the share of positions at which a kernel entry lies within the map."""
    model, x, signals = layer_of(case, "ldrl", amp=0.3, noise_std=0.7)
    w, b = (p.detach().numpy() for p in (model.weight, model.feedback))
    x = x if x.dim() == model.weight.dim() or case == "linear-3d" else x[None]
    y = model.op.apply(x, model.weight.detach())
    ones = model.op.outer(torch.ones_like(x), torch.ones_like(y), model.weight) / len(x)
    share = (ones / model.op.positions(x, y)).detach().numpy()
    found = signals["law"].gradient(b)
    np.testing.assert_allclose(found, 0.3 * 0.7**2 * (b - w) * share, rtol=1e-9, atol=1e-10)
    white = signals["law"].white()
    assert white.dimension == w.size / x.shape[1 if w.ndim > 2 else -1]
    noise = np.stack([*signals["law"].noise(b, 200)])
    assert abs(noise.mean()) < 5 * noise.std() / 200**0.5
