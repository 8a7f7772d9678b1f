"""Where feedback that learns comes to rest at fixed W and inputs, against the theory."""

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.rules.networks import SUM, build
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.rules.primitives import PRIMITIVES


@pytest.mark.parametrize("noise", ["normal", "uniform"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_weight_mirror_drifts_along_the_weights(kind, noise):
    torch.manual_seed(0)
    std, amp, draws = 0.7, 0.4, 600
    layer = nn.Linear(4, 3) if kind == "dense" else nn.Conv2d(2, 3, 2)
    x = torch.zeros((50, 4) if kind == "dense" else (6, 2, 5, 5), dtype=torch.float64)
    net = transport_free(layer.double(), "wm", amp=amp, decay=0.0, noise=noise, noise_std=std)
    drifts = []
    for _ in range(draws):
        net.feedback.grad = None
        net(x).sum().backward()
        drifts.append(-net.feedback.grad)
    drift = torch.stack(drifts)
    error = drift.std(0) / draws**0.5
    expected = amp * std**2 * net.weight.detach()
    assert ((drift.mean(0) - expected).abs() < 4.5 * error).all()  # at most 24 entries: fails by chance once in 6000
    assert error.max() < 0.1 * expected.abs().max()  # tight enough to tell the factor


def settle(name: str, *, x: Tensor, lr: float, steps: int, **coefficients) -> tuple[nn.Module, Tensor]:
    """Descend the rule at fixed W and x; returns the layer and its first feedback."""
    torch.manual_seed(0)
    layer = transport_free(nn.Linear(x.shape[1], 4).double(), name, **coefficients)
    first = layer.feedback.detach().clone()
    optimizer = torch.optim.SGD([layer.feedback], lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        layer(x).sum().backward()
        optimizer.step()
    return layer, first


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_says_whether_it_depends_on_the_feedback(name):
    layer = transport_free(nn.Linear(5, 4).double(), build("sum", **dict.fromkeys(SUM, 0.0) | {name: 0.3}))
    x, gradients = torch.randn(6, 5, dtype=torch.float64), []
    for _ in range(2):
        layer.feedback.grad = None
        layer(x).sum().backward()
        gradients.append(layer.feedback.grad.clone())
        layer.feedback.data.normal_()
    assert gradients[0].norm() > 0
    assert torch.equal(*gradients) == PRIMITIVES[name].pulls


def test_fixed_points_are_those_of_the_theory():
    torch.manual_seed(1)
    x = torch.randn(20, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    sigma = x.T @ x / len(x)

    layer, _ = settle("wm-reg", x=x, lr=0.1, steps=500, amp=0.3, decay=0.5)
    w = layer.weight.detach()
    torch.testing.assert_close(layer.feedback.detach(), 0.3 / 0.5 * w @ sigma, rtol=1e-8, atol=1e-10)

    layer, _ = settle("ia", x=x, lr=0.1, steps=2000, amp=0.3, null=0.2, decay=0.4)
    c = w @ sigma @ w.T
    expected = 0.3 * torch.linalg.solve(0.2 * c + 0.4 * torch.eye(4, dtype=w.dtype), w @ sigma)
    torch.testing.assert_close(layer.feedback.detach(), expected, rtol=1e-8, atol=1e-10)

    layer, _ = settle("sa", x=x, lr=0.1, steps=500, self=0.6, decay=0.5)
    torch.testing.assert_close(layer.feedback.detach(), 0.6 / 0.5 * w, rtol=1e-8, atol=1e-10)


def test_activation_alignment_settles_on_the_range_of_its_inputs():
    torch.manual_seed(1)
    x = torch.randn(20, 3, dtype=torch.float64) @ torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64))[0].T
    layer, first = settle("aa", x=x, lr=0.3, steps=600, amp=0.3, sparse=0.5)
    onto = torch.linalg.pinv(x) @ x
    w, b = layer.weight.detach(), layer.feedback.detach()
    torch.testing.assert_close(b @ onto, 0.3 / 0.5 * w @ onto, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(b - b @ onto, first - first @ onto, rtol=1e-8, atol=1e-10)  # never aligns


def test_weight_mirror_settles_around_the_weights():
    torch.manual_seed(1)
    x = torch.zeros(200, 6, dtype=torch.float64)
    layer, _ = settle("wm", x=x, lr=0.01, steps=300, amp=0.4, decay=0.5, noise_std=1.5)
    expected = 0.4 * 1.5**2 / 0.5 * layer.weight.detach()
    assert (layer.feedback.detach() - expected).norm() < 0.15 * expected.norm()
