"""Models by name: ``build(name, classes=..., shape=...)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.trainers.models.plain import conv, mlp
from wtdiag.trainers.models.resnet import CifarResNet
from wtdiag.trainers.models.sequences import RowLSTM, Transformer

__all__ = ["build", "names"]

# The builder of each model, and the sizes that can be chosen.
BUILT_IN: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "mlp": (mlp, ("depth", "width")),
    "conv": (conv, ("depth", "width")),
    **{f"resnet{depth}": (partial(CifarResNet, depth), ("width",)) for depth in (8, 20, 32, 44, 56, 110)},
    "transformer": (Transformer, ("depth", "width")),
    "lstm": (RowLSTM, ("depth", "width")),
}
_OWN_NORMS = ("transformer", "lstm")  # normalised as their kind is, or not at all


def names() -> tuple[str, ...]:
    """Return the names that :func:`build` knows: wtdiag's own models, then torchvision's.

    Examples
    --------
    >>> [name for name in names() if name.startswith("resnet")]
    ['resnet8', 'resnet20', 'resnet32', 'resnet44', 'resnet56', 'resnet110',
     'resnet101', 'resnet152', 'resnet18', 'resnet34', 'resnet50']
    """
    from wtdiag.trainers.models import zoo

    return (*BUILT_IN, *zoo.names())


def build(
    name: str,
    *,
    classes: int,
    shape: tuple[int, int, int],
    depth: int | None = None,
    width: int | None = None,
    batch_norm: bool = True,
    activation_norm: bool = False,
) -> nn.Module:
    """Build a model by name, with weights drawn from torch's global random state.

    ``depth`` is the number of weight layers of ``mlp`` (default 4) and ``conv`` (7), of blocks of ``transformer`` (2)
    and of layers of ``lstm`` (1). ``width`` is the number of hidden units in each layer of ``mlp`` and ``lstm`` (64),
    of features of ``transformer`` (32), and of channels in the first stage of ``conv`` and of the CIFAR ResNets
    ``resnet8`` to ``resnet110`` (16). ``transformer`` and ``lstm`` start from PyTorch's initialisation, the
    others from He's.

    Every other name is torchvision's model of that name, untrained and with torchvision's initialisation. Because
    those take three channels, a leading module repeats a grey image three times.

    Parameters
    ----------
    name : str
        One of :func:`names`.
    classes : int
        Number of outputs.
    shape : tuple of int
        Shape of one image, (C, H, W).
    depth, width : int, optional
        Size of the model, if its name does not fix it.
    batch_norm : bool
        Whether batch norm follows each hidden weight layer; without it the layers have biases instead. ``transformer``
        and ``lstm`` have none, and in torchvision's models that have it, it cannot be switched off.
    activation_norm : bool
        Whether the activations of each example are normalised after each ReLU, without learned parameters; in ``mlp``,
        ``conv`` and the CIFAR ResNets.

    Returns
    -------
    nn.Module
        A model that maps float32 (n, C, H, W) to (n, classes).

    Raises
    ------
    InputError
        If the name is unknown, if a size is out of range or fixed by the name, if batch norm cannot be switched off or
        activations cannot be normalised, or if the images do not fit the model.

    Examples
    --------
    >>> build("mlp", classes=10, shape=(1, 8, 8), depth=2, width=32, batch_norm=False)
    Sequential(
      (flatten): Flatten(start_dim=1, end_dim=-1)
      (fc1): Linear(in_features=64, out_features=32, bias=True)
      (relu1): ReLU()
      (fc2): Linear(in_features=32, out_features=10, bias=True)
    )
    """
    sizes = {key: value for key, value in (("depth", depth), ("width", width)) if value is not None}
    for argument, value in (("classes", classes), *((f"shape {shape}", n) for n in shape), *sizes.items()):
        if value < 1:
            raise InputError(f"{argument}: {value} is not positive")
    # wtdiag's own models are looked up first, because torchvision takes seconds to import.
    builder, free = BUILT_IN.get(name, (None, ()))
    if builder is None:
        check_one_of("model", name, names())
    for argument, value in sizes.items():
        if argument not in free:
            open_to = ", ".join(model for model, (_, sizes) in BUILT_IN.items() if argument in sizes)
            raise InputError(
                f"{argument}: {value} cannot be used, because {name!r} fixes it; it can be chosen for {open_to}"
            )
    if activation_norm and (builder is None or name in _OWN_NORMS):
        raise InputError(f"activation_norm: cannot be had in {name!r}; mlp, conv and the CIFAR ResNets have it")
    if builder is not None:
        norms = {"batch_norm": batch_norm} | ({"activation_norm": True} if activation_norm else {})
        return builder(classes=classes, shape=shape, **norms, **sizes)
    from wtdiag.trainers.models import zoo

    return zoo.build(name, classes=classes, shape=shape, batch_norm=batch_norm)
