"""Laws of learning against dense linear algebra, and against simulations of the recursion itself."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.probes import brute_force
from tests.probes.layers_in_numpy import RULES, SumLaw, law_of
from wtdiag.probes import PROBES, Quantities
from wtdiag.probes.kernels.lanczos import lanczos
from wtdiag.probes.kernels.random_products import resting_variance

OF_LAWS = sorted(name for name, about in PROBES.items() if "law" in about.needs and name != "tracking_lag")
GENERATOR = np.random.default_rng(5)


def quantities(w, b, law):
    return Quantities(forward=w, feedback=b, law=law)


def fixed_point(w, b, law):
    """B* by dense algebra; modes that H does not reach keep what B has of them."""
    values, vectors = np.linalg.eigh(law.matrix)
    reached = values > 1e-9 * values[-1]
    point = vectors.T @ b.ravel()
    point[reached] = (vectors.T @ law.target.ravel())[reached] / values[reached]
    return (vectors @ point).reshape(b.shape)


def angle(a, b):
    return brute_force.angle(a.ravel(), b.ravel())


def train(b, law, steps, noise=None):
    """Follow `torch.optim.SGD` on the mean gradient; noise makes (of the gradient, of the update)."""
    velocity = np.zeros_like(b)
    for _ in range(steps):
        of_gradient, of_update = noise() if noise else (0.0, 0.0)
        gradient = law.gradient(b) + law.weight_decay * b + of_gradient
        velocity = law.momentum * velocity + gradient
        b = b - law.lr * (gradient + law.momentum * velocity if law.nesterov else velocity) + of_update
        yield b


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(6, 9), (9, 4), (1, 7), (7, 1), (1, 1)])
def test_against_dense_algebra(rule, shape):
    w, b, law = law_of(rule, shape, lr=0.3, weight_decay=1e-3, interval=3)
    measured = quantities(w, b, law)
    h, point = law.matrix, fixed_point(w, b, law)
    top = np.linalg.eigvalsh(h)[-1]
    assert measured["step_size_number"] == pytest.approx(0.3 * top / 2, rel=5e-3)
    assert measured["predicted_angle"] == pytest.approx(angle(point, w), abs=0.1)
    assert measured["predicted_gain"] == pytest.approx(np.sum(point * w) / np.sum(w * w), rel=5e-3)
    distance = np.linalg.norm(b - point) / np.linalg.norm(point)
    assert measured["rest_distance"] == pytest.approx(distance, rel=5e-3)
    curvature = point.ravel() @ h @ point.ravel() / np.sum(point**2)
    assert measured["relaxation_time"] == pytest.approx(3 / (0.3 * curvature), rel=5e-3)


@pytest.mark.parametrize("rule", RULES)
def test_fixed_point_is_where_training_ends(rule):
    w, b, law = law_of(rule, (5, 6), weight_decay=1e-3)
    law.lr = 1.9 / np.linalg.eigvalsh(law.matrix)[-1]
    *_, end = train(b, law, 20_000)
    assert quantities(w, b, law)["predicted_angle"] == pytest.approx(angle(end, w), abs=0.1)
    assert quantities(w, end, law)["rest_distance"] == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)])
@pytest.mark.parametrize("rule", ["ia", "sum"])
def test_one_is_the_limit_of_stability(rule, momentum, nesterov):
    w, b, law = law_of(rule, momentum=momentum, nesterov=nesterov)
    law.lr = 1 / quantities(w, b, law)["step_size_number"]
    assert quantities(w, b, law)["step_size_number"] == pytest.approx(1)
    critical = law.lr
    ends = {}
    for scale in (0.98, 1.02):
        law.lr = scale * critical
        *_, end = train(b, law, 2000)
        ends[scale] = np.abs(end).max()
    assert ends[0.98] < 10
    assert ends[1.02] > 1e6


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.6, False), (0.6, True)])
@pytest.mark.parametrize("rate", [0.1, 0.9, 1.4])
def test_resting_variance_against_a_long_recursion(momentum, nesterov, rate):
    copies, of_gradient, of_update = 1000, [], []
    law = SumLaw(0.0, np.eye(1), np.eye(copies), decay=rate, momentum=momentum, nesterov=nesterov)
    start = np.zeros((1, copies))
    for kept, which in ((of_gradient, 0), (of_update, 1)):
        noises = iter(lambda which=which: tuple(GENERATOR.normal(size=(1, copies)) * (which == i) for i in range(2)), 0)
        for step, b in enumerate(train(start, law, 300, lambda noises=noises: next(noises))):
            if step >= 100:
                kept.append(np.mean(b**2))
    expected = resting_variance(np.array([rate]), momentum, nesterov)
    assert np.mean(of_gradient) == pytest.approx(expected[0][0], rel=0.02)
    assert np.mean(of_update) == pytest.approx(expected[1][0], rel=0.02)


def test_resting_variance_in_closed_form():
    r, mu = np.linspace(0.01, 3, 7), 0.7
    of_gradient, of_update = resting_variance(r, mu, False)
    np.testing.assert_allclose(of_gradient, (1 + mu) / ((1 - mu) * r * (2 * (1 + mu) - r)))
    np.testing.assert_allclose(of_update, ((1 + mu) * (1 - mu) ** 2 + 2 * mu * r) / ((1 - mu) * r * (2 * (1 + mu) - r)))
    for nesterov in (False, True):
        np.testing.assert_allclose(resting_variance(r[:4], 0.0, nesterov), [1 / (r[:4] * (2 - r[:4]))] * 2)


@pytest.mark.parametrize("rule", ["wm-reg", "ia", "sum"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.8, False), (0.8, True)])
def test_noise_against_dense_algebra(rule, momentum, nesterov):
    samples = GENERATOR.normal(size=(4, 6, 9))
    w, b, law = law_of(rule, lr=0.4, momentum=momentum, nesterov=nesterov, samples=samples)
    values, vectors = np.linalg.eigh(law.matrix)
    per_mode = resting_variance(0.4 * values, momentum, nesterov)[0]
    variance = np.mean([per_mode @ (vectors.T @ (0.4 * noise).ravel()) ** 2 for noise in samples])
    expected = math.degrees(math.atan(variance**0.5 / np.linalg.norm(fixed_point(w, b, law))))
    assert quantities(w, b, law)["predicted_noise_angle"] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("rule", ["wm-reg", "ia", "sum"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.8, False), (0.8, True)])
def test_noise_of_updates_against_a_long_recursion(rule, momentum, nesterov):
    w, b, law = law_of(rule, (20, 30), lr=0.4, momentum=momentum, nesterov=nesterov, update_noise=0.003)
    point = fixed_point(w, b, law)

    def noise():
        return 0.0, GENERATOR.normal(scale=0.003, size=b.shape)

    steps = int(5 * quantities(w, b, law)["relaxation_time"])
    far = [np.linalg.norm(b - point) for b in list(train(point, law, 2000 + 2 * steps, noise))[steps:]]
    expected = math.degrees(math.atan(np.mean(np.square(far)) ** 0.5 / np.linalg.norm(point)))
    assert quantities(w, b, law)["predicted_noise_angle"] == pytest.approx(expected, rel=0.05)


def test_no_noise_adds_no_angle():
    assert quantities(*law_of("ia"))["predicted_noise_angle"] == 0


@pytest.mark.parametrize(("interval", "moving"), [(1, 1), (2, 1 / 2), (4, 3 / 4)])  # in the others, B alone learns
def test_tracking_lag_is_what_happens_while_it_relaxes(interval, moving):
    w, b, law = law_of("sa", lr=0.5, interval=interval)
    gradient = GENERATOR.normal(size=w.shape)
    measured = Quantities(forward=w, feedback=b, law=law, forward_gradient=gradient, forward_lr=0.1)
    update = 0.1 * np.linalg.norm(gradient) / np.linalg.norm(w)
    assert measured["relative_update"] == pytest.approx(update)
    assert measured["relaxation_time"] == pytest.approx(10 * interval)
    assert measured["tracking_lag"] == pytest.approx(10 * interval * moving * update)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=10)
@given(exponent=st.sampled_from([-30, -3, 5, 30]), seed=st.integers(0, 1000))
def test_scale_of_weights_does_not_matter(rule, exponent, seed):
    w, b, law = law_of(rule, seed=seed, lr=0.2, samples=np.ones((4, 6, 9)))
    c = 10.0**exponent
    scaled = SumLaw(**vars(law) | {"target": c * law.target, "samples": c * law.samples})
    for name in OF_LAWS:  # with activations as they are: null terms then do not see the scale of W
        np.testing.assert_allclose(
            quantities(c * w, c * b, scaled)[name], quantities(w, b, law)[name], rtol=1e-6, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("rule", RULES)
def test_basis_does_not_matter(rule):
    w, b, law = law_of(rule, lr=0.2, samples=GENERATOR.normal(size=(4, 6, 9)))
    q, p = (np.linalg.qr(GENERATOR.normal(size=(n, n)))[0] for n in (6, 9))
    turned = vars(law) | {"target": q @ law.target @ p.T, "samples": q @ law.samples @ p.T}
    turned |= {"c": q @ law.c @ q.T, "sigma": p @ law.sigma @ p.T}
    for name in OF_LAWS:
        np.testing.assert_allclose(
            quantities(q @ w @ p.T, q @ b @ p.T, SumLaw(**turned))[name],
            quantities(w, b, law)[name],
            rtol=1e-2,
            atol=0.1,
            err_msg=name,
        )


@pytest.mark.parametrize("rule", RULES)
def test_float32(rule):
    w, b, law = law_of(rule, lr=0.2, samples=GENERATOR.normal(size=(4, 6, 9)))
    for name in OF_LAWS:
        single = quantities(w.astype(np.float32), b.astype(np.float32), law)[name]
        assert single == pytest.approx(quantities(w, b, law)[name], rel=1e-3, abs=1e-3, nan_ok=True), name


def test_a_kernel_is_asked_for_in_its_own_precision():
    w, b, law = law_of("aa", (6, 8), lr=0.2)
    flat = quantities(w, b, law)
    shaped = SumLaw(**vars(law) | {"target": law.target.reshape(6, 2, 2, 2)})
    kernels = quantities(*(a.reshape(6, 2, 2, 2).astype(np.float32) for a in (w, b)), shaped)
    for name in ("step_size_number", "predicted_angle", "predicted_gain", "relaxation_time"):
        assert kernels[name] == pytest.approx(flat[name], rel=1e-2, abs=0.1)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_has_a_fixed_point_but_no_step(optimizer):
    measured = quantities(*law_of("ia", optimizer=optimizer))
    of_steps = {"step_size_number", "mean_step_size_number", "relaxation_time"}
    of_steps |= {"predicted_noise_angle"}  # its noise is zero
    assert {name for name in OF_LAWS if math.isnan(measured[name])} == of_steps


def test_unknown_and_zero_learning_rates():
    measured = quantities(*law_of("ia", lr=math.nan))
    assert all(math.isnan(measured[name]) for name in ("step_size_number", "relaxation_time", "predicted_noise_angle"))
    assert math.isfinite(measured["predicted_angle"])
    still = quantities(*law_of("ia", lr=0.0))
    assert still["step_size_number"] == 0
    assert still["relaxation_time"] == math.inf


def test_unstable_learning_has_no_noise_at_rest():
    w, b, law = law_of("sa", lr=11.0, samples=np.ones((4, 6, 9)))
    assert quantities(w, b, law)["step_size_number"] == pytest.approx(1.1)
    assert math.isnan(quantities(w, b, law)["predicted_noise_angle"])


@pytest.mark.parametrize("rule", RULES)
def test_noise_close_to_the_limit(rule):
    w, b, law = law_of(rule, samples=GENERATOR.normal(size=(4, 6, 9)), momentum=0.5)
    for scale in (0.99, 0.9999, 1.0):
        law.lr = scale * 3 / np.linalg.eigvalsh(law.matrix)[-1]
        angle = quantities(w, b, law)["predicted_noise_angle"]
        assert math.isnan(angle) or 0 < angle <= 90


FIXED = ("relaxation_time", "predicted_gain", "predicted_angle", "predicted_noise_angle", "rest_distance")


@pytest.mark.parametrize("coefficients", [{}, {"decay": -0.1}, {"sparse": 0.1, "decay": -0.06}])
def test_what_does_not_attract_is_no_fixed_point(coefficients):
    w, b, law = law_of("sa")
    law = SumLaw(law.target, law.c, law.sigma, **coefficients)
    assert all(math.isnan(quantities(w, b, law)[name]) for name in FIXED)
    assert quantities(w, b, law)["step_size_number"] == pytest.approx(np.linalg.eigvalsh(law.matrix)[-1] / 2, rel=5e-3)


def test_a_target_out_of_reach_has_no_fixed_point():
    w, b, law = law_of("aa")
    law.sigma = np.diag([1.0] * 5 + [0.0] * 4)
    law.target = 0.06 * w  # with parts where no input ever is
    assert all(math.isnan(quantities(w, b, law)[name]) for name in FIXED)


def test_what_no_mode_reaches_stays():
    w, b, law = law_of("aa")
    law.sigma = np.diag([1.0, 2, 3, 4, 5, 0, 0, 0, 0])
    law.target = 0.06 * w @ law.sigma
    point = np.hstack([w[:, :5], b[:, 5:]])
    assert quantities(w, b, law)["predicted_angle"] == pytest.approx(angle(point, w), abs=0.05)
    assert quantities(w, point, law)["rest_distance"] == pytest.approx(0, abs=1e-3)


def test_decay_alone_rests_at_zero():
    w, b, law = law_of("sa")
    law.target = np.zeros_like(w)
    measured = quantities(w, b, law)
    assert measured["predicted_gain"] == 0
    assert all(math.isnan(measured[name]) for name in ("predicted_angle", "rest_distance", "relaxation_time"))


def test_degenerate_weights():
    w, b, law = law_of("ia", samples=np.ones((4, 6, 9)))
    for bad in (math.nan, math.inf):
        for broken in ((np.where(w == w[0, 0], bad, w), b), (w, np.where(b == b[0, 0], bad, b))):
            assert all(math.isnan(quantities(*broken, law)[name]) for name in OF_LAWS)
    nothing = SumLaw(0 * w, 0 * law.c, 0 * law.sigma, null=1.0)
    assert quantities(0 * w, 0 * b, nothing)["step_size_number"] == 0
    assert all(math.isnan(quantities(0 * w, 0 * b, nothing)[name]) for name in FIXED)
    rank_one = np.outer(w[:, 0], w[0])
    assert math.isfinite(quantities(rank_one, b, law)["rest_distance"])


def test_curvature_that_overflows_is_unstable():
    w, b, law = law_of("ia")
    law.c = law.c * 1e308
    law.null = 1e10
    assert quantities(w, b, law)["step_size_number"] == math.inf
    assert all(math.isnan(quantities(w, b, law)[name]) for name in FIXED)


def test_a_multiple_of_the_identity_takes_a_handful_of_products():
    w, b, law = law_of("sa", (30, 40))
    measured = quantities(w, b, law)
    assert [measured[name] for name in OF_LAWS]
    assert law.calls <= 8


def test_lanczos_against_eigenvalues():
    root = GENERATOR.normal(size=(300, 300))
    matrix = root @ root.T
    values, vectors = np.linalg.eigh(matrix)
    start = GENERATOR.normal(size=300)
    top = lanczos(lambda v: matrix @ v, start, lambda ritz, _: ritz[-1])
    assert top == pytest.approx(values[-1], rel=1e-3)
    share = (vectors.T @ start / np.linalg.norm(start)) ** 2
    mean = lanczos(lambda v: matrix @ v, start, lambda ritz, weights: weights @ (1 / (1 + ritz)))
    assert mean == pytest.approx(share @ (1 / (1 + values)), rel=1e-2)
    assert lanczos(lambda v: 0 * v, start, lambda ritz, _: ritz[-1]) == 0
    assert lanczos(lambda v: v * math.inf, start, lambda ritz, _: ritz[-1]) == math.inf
