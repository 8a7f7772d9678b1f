"""Residual networks for CIFAR."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from wtdiag.trainers.models.initial import activation, he_normal_


class CifarResNet(nn.Module):
    """A residual network of 6n + 2 weight layers for small images.

    It consists of a 3x3 convolution, three stages of n blocks with ``width``, 2 ``width`` and 4 ``width`` channels, the
    mean over the map, and one linear layer; a block has two 3x3 convolutions. The first block of the second and of the
    third stage halves the map. Shortcuts have no parameters (option A).

    Without batch norm, the convolutions have biases, and the initial weights of the second convolution of each of the
    L = 3n blocks are divided by sqrt(L). In expectation over the weights, a block then raises the mean square of its
    input at most by the factor 1 + 2/L, and all blocks together by less than e^2. With plain He initialisation it would
    be up to 3^L.

    References
    ----------
    He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int,
        shape: tuple[int, int, int],
        width: int = 16,
        batch_norm: bool = True,
        activation_norm: bool = False,
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = _conv3x3(shape[0], width, 1, batch_norm)
        self.bn1 = _norm(width, batch_norm)
        self.relu = activation(width, normalised=activation_norm)
        self.layer1 = _stage(blocks, width, width, batch_norm, activation_norm)
        self.layer2 = _stage(blocks, width, 2 * width, batch_norm, activation_norm)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, batch_norm, activation_norm)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * width, classes)
        he_normal_(self)
        if not batch_norm:
            with torch.no_grad():
                for module in self.modules():
                    if isinstance(module, _Block):
                        module.conv2.weight.div_((3 * blocks) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, C, H, W) to logits (n, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.flatten(self.mean(x)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    """A block of two 3x3 convolutions, with a shortcut that strides and pads with zero channels."""

    def __init__(self, inputs: int, channels: int, batch_norm: bool, activation_norm: bool) -> None:
        super().__init__()
        self.stride = 1 if inputs == channels else 2
        self.new = channels - inputs
        self.conv1 = _conv3x3(inputs, channels, self.stride, batch_norm)
        self.bn1 = _norm(channels, batch_norm)
        self.relu1 = activation(channels, normalised=activation_norm)
        self.conv2 = _conv3x3(channels, channels, 1, batch_norm)
        self.bn2 = _norm(channels, batch_norm)
        self.relu2 = activation(channels, normalised=activation_norm)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)  # type: ignore[no-any-return]


def _stage(blocks: int, inputs: int, channels: int, *norms: bool) -> nn.Sequential:
    return nn.Sequential(*(_Block(channels if i else inputs, channels, *norms) for i in range(blocks)))


def _conv3x3(inputs: int, channels: int, stride: int, batch_norm: bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=not batch_norm)


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()
