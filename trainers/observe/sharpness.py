"""The largest eigenvalue of the loss's Hessian, from Hessian-vector products alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wtdiag.trainers.layers.revert import revert

Product = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def hessian_product(model: nn.Module, x: Tensor, target: Tensor, loss: Callable[..., Tensor]) -> tuple[Product, int]:
    """Return the function v ↦ H v for the loss's true Hessian in all of a network's weights, and their number.

    The network is one of PyTorch's own layers with the same weights, in evaluation mode, so that neither the rule nor
    the batch's statistics enter. The products are computed in float64.
    """
    plain = revert(model).double().eval()
    parameters = [each.requires_grad_() for each in plain.parameters()]
    point = x.double() if x.is_floating_point() else x
    gradients = torch.autograd.grad(loss(plain(point), target), parameters, create_graph=True)
    slope = torch.cat([gradient.flatten() for gradient in gradients])

    def product(v: NDArray[np.float64]) -> NDArray[np.float64]:
        vector = torch.from_numpy(np.ascontiguousarray(v)).to(slope.device)
        found = torch.autograd.grad(slope, parameters, vector, retain_graph=True, materialize_grads=True)
        return np.asarray(torch.cat([each.flatten() for each in found]).cpu().numpy(), dtype=np.float64)

    return product, len(slope)
