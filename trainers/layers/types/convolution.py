"""PyTorch's convolutions and transposed convolutions with feedback weights of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.layers.conversions import converts
from wtdiag.trainers.layers.operations import Convolution, Operation
from wtdiag.trainers.layers.synaptic import Synaptic


class _Conv(Synaptic):
    """Convolutions of any dimension; other padding modes than zeros and uneven "same" padding are applied before.

    Such padding is a separate operation of autograd, so the padded map is the layer's input: B sends an error to the
    padding too, which autograd folds back, and the regularisers of learned rules and the feedback of direct rules see
    the padded map.
    """

    padding: str | tuple[int, ...]
    padding_mode: Any
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    _reversed_padding_repeated_twice: list[int]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        x = input if input.dim() > len(self.stride) + 1 else input.unsqueeze(0)
        if self._pads_first:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        y = self._apply_synapse(x, self.op)
        return y if x.dim() == input.dim() else y.squeeze(0)

    @property
    def _pads_first(self) -> bool:
        twice = self._reversed_padding_repeated_twice
        lopsided = self.padding == "same" and twice[::2] != twice[1::2]
        return self.padding_mode != "zeros" or lopsided

    def _operation(self) -> Operation:
        padding: tuple[int, ...] = (0,) * len(self.stride)
        if not self._pads_first and self.padding != "valid":
            padding = tuple(self._reversed_padding_repeated_twice[::-2])
        return Convolution(self.stride, padding, self.dilation, groups=self.groups)


@converts(nn.Conv1d)
class Conv1d(_Conv, nn.Conv1d):
    """`torch.nn.Conv1d` with feedback weights."""


@converts(nn.Conv2d)
class Conv2d(_Conv, nn.Conv2d):
    """`torch.nn.Conv2d` with feedback weights."""


@converts(nn.Conv3d)
class Conv3d(_Conv, nn.Conv3d):
    """`torch.nn.Conv3d` with feedback weights."""


class _ConvTranspose(Synaptic):
    """Transposed convolutions of any dimension, ``output_size`` included."""

    padding: Any
    output_padding: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        dimensions = len(self.stride)
        x = input if input.dim() > dimensions + 1 else input.unsqueeze(0)
        op = self.op
        if output_size is not None:
            extra = self._output_padding(
                input, output_size, self.stride, self.padding, self.kernel_size, dimensions, self.dilation
            )
            op = dataclasses.replace(op, output_padding=tuple(extra))  # type: ignore[type-var]
        y = self._apply_synapse(x, op)
        return y if x.dim() == input.dim() else y.squeeze(0)

    def _operation(self) -> Operation:
        return Convolution(self.stride, self.padding, self.dilation, True, tuple(self.output_padding), self.groups)


@converts(nn.ConvTranspose1d)
class ConvTranspose1d(_ConvTranspose, nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` with feedback weights."""


@converts(nn.ConvTranspose2d)
class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with feedback weights."""


@converts(nn.ConvTranspose3d)
class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with feedback weights."""
