"""Layers of every kind, each with the plain functions that its reference is written in."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Case:
    """A PyTorch layer and the shape of an input to it."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.make().double()

    def input(self, seed: int = 1) -> Tensor:
        return torch.randn(self.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Conv1D(nn.Module):
    """A stand-in for Hugging Face's layer of this name, which is recognised by its module."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.nf, self.nx = outputs, inputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return y.view((*x.size()[:-1], self.nf))


Conv1D.__module__ = "transformers.pytorch_utils"


CASES = {
    "linear": Case(lambda: nn.Linear(5, 4), (6, 5)),
    "linear-no-bias": Case(lambda: nn.Linear(5, 4, bias=False), (6, 5)),
    "linear-3d": Case(lambda: nn.Linear(5, 4), (3, 2, 5)),
    "linear-4d": Case(lambda: nn.Linear(5, 4), (3, 2, 2, 5)),
    "linear-unbatched": Case(lambda: nn.Linear(5, 4), (5,)),
    "in-out": Case(lambda: Conv1D(4, 5), (3, 2, 5)),
    "conv1d": Case(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2), (3, 4, 11)),
    "conv1d-groups": Case(lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False), (3, 4, 9)),
    "conv2d": Case(lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 6)),
    "conv2d-oblong": Case(
        lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), (2, 3, 7, 6)
    ),
    "conv2d-depthwise": Case(lambda: nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4), (2, 4, 5, 5)),
    "conv2d-unbatched": Case(lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 5, 5)),
    "conv2d-valid": Case(lambda: nn.Conv2d(3, 4, 3, padding="valid"), (2, 3, 5, 5)),
    "conv2d-same": Case(lambda: nn.Conv2d(3, 4, 3, padding="same", dilation=2), (2, 3, 5, 5)),
    "conv2d-same-even": Case(lambda: nn.Conv2d(3, 4, (2, 3), padding="same"), (2, 3, 5, 5)),
    "conv2d-reflect": Case(lambda: nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="reflect"), (2, 3, 5, 5)),
    "conv2d-circular-same": Case(
        lambda: nn.Conv2d(3, 4, (2, 3), padding="same", padding_mode="circular"), (2, 3, 5, 5)
    ),
    "conv3d": Case(lambda: nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2), (2, 2, 3, 4, 4)),
    "conv3d-replicate": Case(lambda: nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 2, 3, 3, 3)),
    "transposed1d": Case(lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2, bias=False), (3, 4, 5)),
    "transposed2d": Case(
        lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, dilation=(1, 2)), (2, 3, 4, 4)
    ),
    "transposed2d-unbatched": Case(lambda: nn.ConvTranspose2d(3, 4, 2, stride=2), (3, 4, 4)),
    "transposed3d": Case(lambda: nn.ConvTranspose3d(2, 3, 2, padding=1), (2, 2, 3, 3, 3)),
}


def seen(layer: nn.Module, x: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """Return the input that the layer's weights meet, batched and padded, and the function (x, weight) -> W x."""
    if isinstance(layer, nn.Linear):
        return (x if x.dim() > 1 else x[None]), F.linear
    if isinstance(layer, Conv1D):
        return x, lambda x, w: x @ w
    dims = len(layer.stride)
    x = x if x.dim() == dims + 2 else x[None]
    if isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
        return x, lambda x, w: transposed(
            x, w, None, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        )
    conv = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    padding = layer.padding
    if padding == "valid":
        padding = (0,) * dims
    if padding == "same" or layer.padding_mode != "zeros":
        ends = []
        for d in reversed(range(dims)):  # F.pad starts from the last dimension
            total = layer.dilation[d] * (layer.kernel_size[d] - 1)
            left, right = (total // 2, total - total // 2) if padding == "same" else (padding[d], padding[d])
            ends += [left, right]
        lopsided = any(left != right for left, right in zip(ends[::2], ends[1::2], strict=True))
        if layer.padding_mode == "zeros" and not lopsided:
            padding = tuple(ends[::-2])
        else:
            x = F.pad(x, ends, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
            padding = (0,) * dims
    return x, lambda x, w: conv(x, w, None, layer.stride, padding, layer.dilation, layer.groups)


def uses(layer: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return in how many places of one example the weights are used; x and y batched."""
    if isinstance(layer, nn.Linear | Conv1D):
        return x[0, ..., 0].numel()
    return (x if isinstance(layer, nn.modules.conv._ConvTransposeNd) else y)[0, 0].numel()


def adjoint(function: Callable[[Tensor, Tensor], Tensor], weight: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return Wᵀ y as the derivative of yᵀ W x by x, differentiable by the weight."""
    free = torch.zeros_like(x, requires_grad=True)
    return torch.autograd.grad((function(free, weight) * y).sum(), free, create_graph=True)[0]
