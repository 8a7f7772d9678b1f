"""Perturbed inputs: attacks along a network's true input gradient or along its rule's own, noise and blur.

Perturbations are measured in units of each channel's range, see `input_range`, and do not leave that range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.v2.functional import gaussian_blur

from wtdiag.trainers.data import Split
from wtdiag.trainers.data.splits import ArraySplit
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.layers.revert import revert
from wtdiag.trainers.observe.recorded import Recorded

InputGradient = Callable[[Tensor, Tensor], Tensor]
"""Function of inputs and their classes that returns the gradient of the loss by the inputs, or what stands for it."""
_AT_ONCE = 250  # examples that pass a network together
_FARTHER = 2.5
"""Length of all steps of PGD together, in units of the strength, so that it reaches the border from within."""


def perturbed(
    of: Recorded, x: Tensor, y: Tensor, strengths: Sequence[float], widths: Sequence[float], pgd_steps: int
) -> list[tuple[str, float, Callable[[], Tensor]]]:
    """Return the perturbations of test examples, as (name, strength, function that returns the inputs).

    The names are the keys of `diagnostics.analysis.attacked.ATTACKS`. The rule's own signal is left out where it is
    the true gradient, and the blur where the data is no image. Random numbers are those of a fixed seed.
    """
    low, high = (end.to(x) for end in input_range(of.data.train))
    gradients = {"true": input_gradient(revert(of.model))}
    if not all(layer.rule.transports for _, layer in synapses(of.model)):
        gradients["rule"] = input_gradient(of.model)
    ways: list[tuple[str, float, Callable[[], Tensor]]] = [("none", 0.0, lambda: x)]
    for method, steps in (("fgsm", 0), ("pgd", pgd_steps)):
        for name, gradient in gradients.items():
            ways += [
                (f"{method}-{name}", strength, partial(_attacked, gradient, x, y, low, high, strength, steps))
                for strength in strengths
            ]
    ways += [("noise", strength, partial(noise, x, low, high, strength, _generator())) for strength in strengths]
    if min(x.shape[-2:]) > 1:
        ways += [("blur", width, partial(blur, x, width)) for width in widths]
    return ways


def _attacked(
    gradient: InputGradient, x: Tensor, y: Tensor, low: Tensor, high: Tensor, strength: float, steps: int
) -> Tensor:
    """Return inputs attacked by PGD with some steps, or by FGSM if there are none."""
    if not steps:
        return fgsm(gradient, x, y, low, high, strength)
    return pgd(gradient, x, y, low, high, strength, steps=steps, generator=_generator())


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def input_range(split: Split) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest value of each channel, (C, 1, 1), normalised as batches are.

    They are those of the split's examples, or of all pixels, 0 and 255, where the examples are read from files.

    Examples
    --------
    >>> from wtdiag.trainers.data import load
    >>> low, high = input_range(digits := load("digits").train)
    >>> float((low * digits.std[0] + digits.mean[0]).round()), float((high * digits.std[0] + digits.mean[0]).round())
    (0.0, 16.0)
    """
    if isinstance(split, ArraySplit):
        ends = split.images.amin((0, 2, 3)), split.images.amax((0, 2, 3))
    else:
        ends = torch.zeros(len(split.mean)), torch.full((len(split.mean),), 255.0)
    low, high = (split.normalised(end.view(-1, 1, 1)) for end in ends)
    return low, high


def input_gradient(model: nn.Module) -> InputGradient:
    """Return the gradient of the summed cross-entropy by a network's inputs, as its backward pass gives it.

    In a converted network that is the signal which the rule's feedback sends to the inputs. The network is switched to
    evaluation mode, and none of its weights learns.
    """
    model.eval().requires_grad_(False)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for some, classes in zip(torch.split(x, _AT_ONCE), torch.split(y, _AT_ONCE), strict=True):
            point = some.detach().clone().requires_grad_()
            loss = cross_entropy(model(point), classes, reduction="sum")
            parts += torch.autograd.grad(loss, point, materialize_grads=True)
        return torch.cat(parts)

    return gradient


def fgsm(gradient: InputGradient, x: Tensor, y: Tensor, low: Tensor, high: Tensor, strength: float) -> Tensor:
    """Return inputs moved by ``strength`` along the sign of the gradient: the fast gradient sign method.

    ``low`` and ``high`` are the ends of each channel's range, (C, 1, 1), and ``strength`` is a share of it.

    References
    ----------
    Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572.
    """
    return _inside(x + strength * (high - low) * gradient(x, y).sign(), x, low, high)


def pgd(
    gradient: InputGradient,
    x: Tensor,
    y: Tensor,
    low: Tensor,
    high: Tensor,
    strength: float,
    *,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return inputs after ``steps`` signed gradient steps from a random start, within ``strength`` of the inputs.

    Each step is projected back into the ball of the largest norm: projected gradient descent.

    References
    ----------
    Madry et al. 2018, arXiv:1706.06083.
    """
    reach = strength * (high - low)
    start = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device) - 1
    moved = _inside(x + reach * start, x, low, high)
    for _ in range(steps):
        moved = moved + _FARTHER / steps * reach * gradient(moved, y).sign()
        moved = _inside(torch.maximum(torch.minimum(moved, x + reach), x - reach), x, low, high)
    return moved


def noise(x: Tensor, low: Tensor, high: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Return inputs with Gaussian noise, whose standard deviation is ``strength`` times each channel's range."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return _inside(x + strength * (high - low) * drawn, x, low, high)


def blur(x: Tensor, width: float) -> Tensor:
    """Return images blurred by a Gaussian whose standard deviation is ``width`` pixels."""
    side = min(math.ceil(3 * width), *(size - 1 for size in x.shape[-2:]))  # a reflected border is no wider than that
    blurred: Tensor = gaussian_blur(x, [2 * side + 1, 2 * side + 1], [width, width])
    return blurred


def _inside(moved: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return moved inputs within the range of each channel, which a test example itself may lie outside."""
    return torch.maximum(torch.minimum(moved, torch.maximum(high, x)), torch.minimum(low, x))
