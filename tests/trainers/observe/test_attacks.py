"""Perturbed inputs, by closed form: on a linear model, signed gradients and the corner of the ball are known."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn.functional import cross_entropy, softplus

import wtdiag
from wtdiag.trainers.data import load
from wtdiag.trainers.data.folders import FolderSplit
from wtdiag.trainers.data.splits import ArraySplit
from wtdiag.trainers.observe.attacks import blur, fgsm, input_gradient, input_range, noise, pgd

STRENGTH = 0.03


@pytest.fixture
def linear():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).double()
    x, y = torch.rand(20, 3, 2, 2, dtype=torch.float64) * 0.5 + 0.25, torch.randint(2, (20,))
    low, high = torch.zeros(3, 1, 1).double(), torch.tensor([1.0, 2.0, 4.0]).double().view(3, 1, 1)
    return net, x, y, low, high


def margins(net, x, y):
    logits = net(x)
    return (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None]))[:, 0]


def test_fgsm_lowers_the_margin_of_a_linear_model_by_the_weighted_norm_of_its_weights(linear):
    net, x, y, low, high = linear
    moved = fgsm(input_gradient(net), x, y, low, high, STRENGTH)
    difference = (net[1].weight[1] - net[1].weight[0]).abs().view(3, 2, 2)
    expected = margins(net, x, y) - STRENGTH * ((high - low) * difference).sum()
    torch.testing.assert_close(margins(net, moved, y), expected)
    torch.testing.assert_close(cross_entropy(net(moved), y, reduction="none"), softplus(-expected))


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_pgd_comes_to_the_corner_of_the_ball(linear, steps):
    net, x, y, low, high = linear
    gradient = input_gradient(net)
    moved = pgd(gradient, x, y, low, high, STRENGTH, steps=steps, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(moved, fgsm(gradient, x, y, low, high, STRENGTH))


@pytest.mark.parametrize("rule", ["fa", "kp", "sa", "pfa", "dfa"])
def test_the_rules_own_signal_is_what_its_feedback_sends_to_the_inputs(linear, rule):
    net, x, y, *_ = linear
    model = wtdiag.transport_free(net, rule)
    model(x)
    sent = (net(x).softmax(1) - nn.functional.one_hot(y, 2)) @ model[1].feedback.view(2, 12).detach()
    torch.testing.assert_close(input_gradient(model)(x, y), sent.view_as(x))
    true = (net(x).softmax(1) - nn.functional.one_hot(y, 2)) @ net[1].weight
    torch.testing.assert_close(input_gradient(wtdiag.revert(model))(x, y), true.view_as(x).detach())


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_nothing_leaves_the_range_but_what_lay_outside_it(linear, strength):
    net, x, y, low, high = linear
    x[0] = -0.5
    ends = torch.minimum(low, x), torch.maximum(high, x)
    gradient, drawn = input_gradient(net), torch.Generator()
    for moved in (
        fgsm(gradient, x, y, low, high, strength),
        pgd(gradient, x, y, low, high, strength, steps=3, generator=drawn),
        noise(x, low, high, strength, drawn),
    ):
        assert (moved >= ends[0]).all()
        assert (moved <= ends[1]).all()
        assert moved.amin((0, 2, 3)).allclose(ends[0].amin((0, 2, 3)))  # and the range is used


def test_the_range_is_that_of_the_pixels():
    digits = load("digits").train
    low, high = input_range(digits)
    seen = digits.batch(torch.arange(len(digits)))[0]
    assert (low.item(), high.item()) == (seen.min().item(), seen.max().item())
    files = FolderSplit(torch.zeros(1), (100.0, 0.0, 50.0), (10.0, 255.0, 1.0), ("x",), 8)
    low, high = input_range(files)
    np.testing.assert_allclose(low.ravel(), [-10, 0, -50])
    np.testing.assert_allclose(high.ravel(), [15.5, 1, 205])
    still = ArraySplit(torch.zeros(2), (0.0,), (1.0,), torch.tensor([[3.0, 1.0], [3.0, 2.0]]).view(2, 2, 1, 1))
    low, high = input_range(still)
    assert (high - low).ravel().tolist() == [0, 1]


def test_noise_has_its_deviation_in_units_of_the_range():
    x = torch.zeros(200, 2, 10, 10)
    low, high = (end * torch.tensor([50.0, 100.0]).view(2, 1, 1) for end in (-1, 1))
    moved = noise(x, low, high, 0.1, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(moved.std((0, 2, 3)), [10, 20], rtol=0.03)


@pytest.mark.parametrize(("width", "shape"), [(0.5, (9, 9)), (2.0, (9, 7)), (2.0, (3, 2))])
def test_blur_is_a_gaussian_filter(width, shape):
    x = torch.rand(2, 3, *shape, dtype=torch.float64)
    radius = min(math.ceil(3 * width), shape[0] - 1, shape[1] - 1)
    expected = gaussian_filter(x.numpy(), width, mode="mirror", radius=radius, axes=(2, 3))
    np.testing.assert_allclose(blur(x, width), expected, atol=1e-12)
