"""The three operations of a layer type, `apply`, `adjoint` and `outer`, in which every rule is written.

=============== ============== ======================= =================================
operation       dense          convolution             meaning
=============== ============== ======================= =================================
``apply``       W x            conv(x, W)              forward
``adjoint``     Wᵀ y           transposed conv(y, W)   error path, for any W-shaped matrix
``outer``       Σ y xᵀ         weight gradient         W-shaped product, summed over batch
=============== ============== ======================= =================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Operation(Protocol):
    """The operations of a layer type that rules need."""

    @property
    def channels_first(self) -> bool:
        """Whether features are dimension 1, followed by positions, rather than the last dimension."""

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W x + b."""

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Return Wᵀ y in the shape of ``x``, of which only the shape is used."""

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Return Σ y xᵀ in the shape of ``weight``, of which only the shape is used."""

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        """Return (adjoint(dy, feedback), outer(x, dy), sum of dy), each None unless wanted."""

    def positions(self, x: Tensor, y: Tensor) -> int:
        """Return the number of positions of one example at which the weights are used."""

    def fan_in(self, weight: Tensor) -> float:
        """Return the number of inputs that one output sums over."""


@dataclass(frozen=True)
class Dense:
    """Linear layers, over the last dimension of inputs with any number of leading ones.

    Examples
    --------
    >>> x, y, w = torch.ones(5, 2), torch.ones(5, 3), torch.ones(3, 2)
    >>> op = Dense()
    >>> op.apply(x, w).shape, op.adjoint(y, w, x).shape, op.outer(x, y, w).shape
    (torch.Size([5, 3]), torch.Size([5, 2]), torch.Size([3, 2]))
    """

    channels_first = False

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, weight, bias)

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        return y @ weight

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return y.reshape(-1, y.shape[-1]).t() @ x.reshape(-1, x.shape[-1])

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        return (
            self.adjoint(dy, feedback, x) if wanted[0] else None,
            self.outer(x, dy, feedback) if wanted[1] else None,
            dy.reshape(-1, dy.shape[-1]).sum(0) if wanted[2] else None,
        )

    def positions(self, x: Tensor, y: Tensor) -> int:
        return math.prod(x.shape[1:-1])

    def fan_in(self, weight: Tensor) -> float:
        return weight.shape[1]


@dataclass(frozen=True)
class Convolution:
    """Convolutions and transposed convolutions in one to three dimensions, through ATen's own kernels.

    Examples
    --------
    >>> op = Convolution(stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    >>> x, w = torch.ones(5, 2, 8, 8), torch.ones(3, 2, 3, 3)
    >>> y = op.apply(x, w)
    >>> y.shape, op.adjoint(y, w, x).shape, op.outer(x, y, w).shape
    (torch.Size([5, 3, 4, 4]), torch.Size([5, 2, 8, 8]), torch.Size([3, 2, 3, 3]))
    """

    channels_first = True

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # torch.convolution would do for every dimension, but autocast on CPUs does not know it.
        d = len(self.stride) - 1
        if self.transposed:
            transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[d]
            extra = self._output_padding
            return transposed(x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[d]
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def adjoint(self, y: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        dx = self.backward(y, x, weight, (True, False, False))[0]
        assert dx is not None
        return dx

    def outer(self, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        dw = self.backward(y, x, weight, (False, True, False))[1]
        assert dw is not None
        return dw

    def backward(self, dy: Tensor, x: Tensor, feedback: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        # One call gives both the error through the feedback weights and the true weight gradient, because the weight
        # gradient does not depend on the weights.
        gradients: Gradients = torch.ops.aten.convolution_backward.default(
            dy,
            x,
            feedback,
            [dy.shape[1]] if wanted[2] else None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self._output_padding,
            self.groups,
            wanted,
        )
        return gradients

    def positions(self, x: Tensor, y: Tensor) -> int:
        return math.prod((x if self.transposed else y).shape[2:])

    def fan_in(self, weight: Tensor) -> float:
        kernel = math.prod(weight.shape[2:])
        if self.transposed:  # only one in prod(stride) kernel entries reaches a given output position
            return max(1.0, weight.shape[0] // self.groups * kernel / math.prod(self.stride))
        return weight.shape[1] * kernel

    @property
    def _output_padding(self) -> tuple[int, ...]:
        return self.output_padding or (0,) * len(self.stride)
