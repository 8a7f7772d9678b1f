"""The largest eigenvalue of the Hessian against the explicit matrix."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from wtdiag.probes.kernels.lanczos import lanczos
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.observe.sharpness import hessian_product


@pytest.mark.parametrize("rule", ["bp", "fa", "ia"])
def test_it_is_that_of_the_explicit_hessian(rule):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(20, 5).double(), torch.arange(20) % 3
    product, size = hessian_product(transport_free(net, rule), x, y, cross_entropy)
    flat = torch.cat([each.detach().flatten() for each in net.parameters()])

    def value(weights):
        parts = torch.split(weights, [each.numel() for each in net.parameters()])
        named = {name: part.view_as(p) for (name, p), part in zip(net.named_parameters(), parts, strict=True)}
        return cross_entropy(torch.func.functional_call(net, named, x), y)

    hessian = torch.autograd.functional.hessian(value, flat).numpy()
    v = np.random.default_rng(1).normal(size=size)
    np.testing.assert_allclose(product(v), hessian @ v, rtol=1e-9, atol=1e-12)
    found = lanczos(product, v, lambda values, weights: values[-1], tolerance=1e-5, most=128)
    assert found == pytest.approx(np.linalg.eigvalsh(hessian)[-1], rel=1e-4)
