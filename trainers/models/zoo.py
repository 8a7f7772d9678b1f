"""Torchvision's classification models, adapted to other images and classes."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from wtdiag.probes.errors import InputError, first_line


class GreyToRGB(nn.Module):
    """A module that repeats the one channel of (n, 1, H, W) three times, for models of colour images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 3, H, W)."""
        return x.expand(-1, 3, -1, -1)


def names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models."""
    return tuple(models.list_models(module=models))


def build(name: str, *, classes: int, shape: tuple[int, int, int], batch_norm: bool = True) -> nn.Module:
    """Return torchvision's untrained model ``name``; see :func:`trainers.models.build`."""
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"model: {name!r} takes images of 3 channels (or 1, repeated), not of {channels}")
    image = f"{channels}x{height}x{width} images"
    try:
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **_options(name, height, width))
        if not batch_norm:
            _require_no_batch_norm(name, model)
        if channels == 1:
            model = nn.Sequential(OrderedDict(rgb=GreyToRGB(), net=model))
        # A pass on the meta device computes only shapes, and costs almost nothing.
        tensors = chain(model.named_parameters(), model.named_buffers())
        meta = {key: tensor.detach().to("meta") for key, tensor in tensors}
        functional_call(model, meta, (torch.zeros(2, *shape, device="meta"),))
    except (RuntimeError, ValueError, AssertionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"model: {name!r} cannot take {image} ({first_line(error)})") from error
    return model


def _options(name: str, height: int, width: int) -> dict[str, Any]:
    """Return further arguments of models whose form depends on the image size or that have auxiliary outputs."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("maxvit"):
        return {"input_size": (height, width)}
    if name.startswith("vit_"):
        if height != width:
            raise InputError(f"model: {name!r} takes square images, not {height}x{width}")
        return {"image_size": height}
    return {}


def _require_no_batch_norm(name: str, model: nn.Module) -> None:
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        plain = name.removesuffix("_bn")
        advice = f"use {plain!r}" if plain != name else "the models vgg11 to vgg19 have no batch norm"
        raise InputError(f"batch_norm: cannot be switched off for {name!r}; {advice}")
