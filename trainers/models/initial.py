"""The initialisation of wtdiag's own models."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

__all__ = ["he_normal_"]

Model = TypeVar("Model", bound=nn.Module)


def he_normal_(model: Model) -> Model:
    """Draw every linear and convolutional weight from N(0, 2 / fan_in), set biases to 0, return the model.

    References
    ----------
    He et al. 2015, "Delving Deep into Rectifiers", equation 10.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
