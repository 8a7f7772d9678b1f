"""The converted network of a run, built from its settings."""

from __future__ import annotations

import torch
from torch import nn

from wtdiag.probes.errors import InputError, first_line
from wtdiag.trainers import models
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.models.pretrained import load_pretrained

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
"""The dtype of the weights by precision; "bfloat16" computes by autocast, with weights in float32."""


def build_network(settings: Settings, *, shape: tuple[int, int, int], classes: int, begins: bool = False) -> nn.Module:
    """Return the converted network of a run, with the initial weights of its seed.

    W is drawn before B, so runs with the same seed start from the same W whatever their rule. Everything is drawn on
    the CPU, and the global random state of every device is left as it was. The file that ``pretrained`` names is read
    only where a run ``begins``: a recorded one has weights of its own, and may come from anyone.

    Raises
    ------
    InputError
        If there is no such model, size or rule, or the network does not fit into memory.
    """
    dtype = DTYPES[settings.precision]
    sizes = {"depth": settings.depth, "width": settings.width}
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(settings.seed)
            model = models.build(
                settings.model,
                classes=classes,
                shape=shape,
                batch_norm=settings.batch_norm,
                activation_norm=settings.activation_norm,
                **sizes,
            )
            if begins and settings.pretrained is not None:
                load_pretrained(model, settings.pretrained, name=settings.model)
            sample = torch.zeros(2, *shape, dtype=dtype)
            rule = settings.rule_at(0.0, 0.0)
            points = settings.points.split(",") if settings.points else None
            return transport_free(model.to(dtype), rule, sample=sample, classes=classes, batch_axis=0, points=points)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:  # torch raises these for too large sizes
        arguments = {"seed": settings.seed, "shape": shape, "classes": classes, **sizes}
        given = ", ".join(f"{name}={value}" for name, value in arguments.items() if value is not None)
        raise InputError(f"model: {settings.model!r} cannot be built with {given} ({first_line(error)})") from error
