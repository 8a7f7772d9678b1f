"""Networks that are plain stacks of layers, fully connected and convolutional."""

from __future__ import annotations

from collections import OrderedDict
from math import prod

from torch import nn

from wtdiag.probes.errors import InputError
from wtdiag.trainers.models.initial import activation, he_normal_


def mlp(
    *,
    classes: int,
    shape: tuple[int, int, int],
    depth: int = 4,
    width: int = 64,
    batch_norm: bool = True,
    activation_norm: bool = False,
) -> nn.Sequential:
    """Return ``depth`` linear layers ``fc1`` ... after flatten; all but the last have batch norm and ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    inputs = prod(shape)
    for i in range(1, depth):
        layers[f"fc{i}"] = nn.Linear(inputs, width, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{i}"] = nn.BatchNorm1d(width)
        layers[f"relu{i}"] = activation(width, normalised=activation_norm)
        inputs = width
    layers[f"fc{depth}"] = nn.Linear(inputs, classes)
    return he_normal_(nn.Sequential(layers))


def conv(
    *,
    classes: int,
    shape: tuple[int, int, int],
    depth: int = 7,
    width: int = 16,
    batch_norm: bool = True,
    activation_norm: bool = False,
) -> nn.Sequential:
    """Return ``depth - 1`` 3x3 convolutions ``conv1`` ..., each with batch norm and ReLU, then a mean and ``fc``.

    The convolutions are spread evenly over three stages. The first convolution of the second and of the third stage
    halves the map (stride 2) and doubles the channels.
    """
    if depth < 2:
        raise InputError(f"depth: {depth} is too small for 'conv'; expected at least 2, a convolution and fc")
    stages = [3 * i // (depth - 1) for i in range(depth - 1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, before = shape[0], 0
    for i, stage in enumerate(stages, start=1):
        channels = width * 2**stage
        layers[f"conv{i}"] = nn.Conv2d(inputs, channels, 3, stride=1 + (stage > before), padding=1, bias=not batch_norm)
        if batch_norm:
            layers[f"bn{i}"] = nn.BatchNorm2d(channels)
        layers[f"relu{i}"] = activation(channels, normalised=activation_norm)
        inputs, before = channels, stage
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(inputs, classes)
    return he_normal_(nn.Sequential(layers))
