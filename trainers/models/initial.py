"""What wtdiag's own models share: their initialisation, and the activation after a layer."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from wtdiag.probes.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def activation(units: int, *, normalised: bool) -> nn.Module:
    """Return a ReLU; ``normalised`` appends what brings each example to mean 0 and variance 1 over its units and map.

    That is layer normalisation without its learned scale and shift: Ba et al. 2016, arXiv:1607.06450.

    Raises
    ------
    InputError
        If one unit is to be normalised, which would leave nothing of it.

    Examples
    --------
    >>> import torch
    >>> activation(3, normalised=True)(torch.tensor([[-1.0, 0.0, 3.0]]))
    tensor([[-0.7071, -0.7071,  1.4142]])
    """
    if not normalised:
        return nn.ReLU()
    if units < 2:
        raise InputError(f"activation_norm: needs layers of two units at least, got {units}")
    return nn.Sequential(nn.ReLU(), nn.GroupNorm(1, units, affine=False))


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
