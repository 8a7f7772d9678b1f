"""Trained weights to begin from: a file with a state dict, or the weights that torchvision publishes."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError, first_line

_WRAPPERS = ("state_dict", "model")  # under which training scripts keep the weights beside other things
_PREFIX = "module."  # that DistributedDataParallel puts before every name


def load_pretrained(model: nn.Module, source: str, *, name: str) -> None:
    """Replace the weights of an untrained model by trained ones, in place.

    The last layer keeps its initial weights if the trained one has another number of classes; a warning says so.

    Parameters
    ----------
    model
        The model.
    source
        A file from `torch.save` with a state dict, or the name of torchvision's weights for this model, or "default".
    name
        Name of the model.

    Raises
    ------
    InputError
        If the weights cannot be read or downloaded, or do not fit the model.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "trained.pt")
    >>> torch.save(nn.Linear(3, 2).state_dict(), file)
    >>> load_pretrained(nn.Linear(3, 2), str(file), name="mlp")
    """
    path = Path(source).expanduser()
    trained = _read(path) if path.exists() else _published(source, name)
    grey = "net." if "rgb" in dict(model.named_children()) else ""  # torchvision's model behind a repeated channel
    trained = {grey + key: value for key, value in trained.items() if not key.lower().startswith("aux")}
    own = model.state_dict()
    *_, last = (key for key, value in own.items() if value.dim() > 1)
    head = last.rpartition(".")[0]
    if key := next(iter(sorted(own.keys() ^ trained.keys())), ""):
        where = "is missing there" if key in own else "is not in the model"
        raise InputError(f"pretrained: {source} does not fit {name!r}: {key} {where}")
    left = [key for key in own if own[key].shape != trained[key].shape]
    for key in left:
        if key.rpartition(".")[0] != head:
            raise InputError(
                f"pretrained: {source} does not fit {name!r}: {key} has shape {tuple(trained[key].shape)} there, and "
                f"{tuple(own[key].shape)} in the model"
            )
    if left:
        warnings.warn(
            f"pretrained: {head} has {len(trained[last])} outputs in {source} and {len(own[last])} in the model; it "
            "keeps its initial weights",
            stacklevel=2,
        )
    model.load_state_dict({key: own[key] if key in left else trained[key] for key in own})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)  # which runs no code in the file
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"pretrained: {path} cannot be read as weights ({first_line(error)})") from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"pretrained: {path} holds no state dict; expected names with tensors")
    return {str(key).removeprefix(_PREFIX): value for key, value in content.items()}


def _published(source: str, name: str) -> dict[str, Tensor]:
    from torchvision import models  # here, because it takes seconds

    if name not in models.list_models(module=models):
        raise InputError(f"pretrained: {source}: no such file; torchvision publishes no weights for {name!r}")
    known: Any = models.get_model_weights(name)
    choices = {"default": known.DEFAULT} | {each.name.lower(): each for each in known}
    if source.lower() not in choices:
        raise InputError(f"pretrained: {source}: no such file; torchvision's weights of {name!r}: {', '.join(choices)}")
    try:
        trained: dict[str, Tensor] = choices[source.lower()].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"pretrained: torchvision's weights of {name!r} cannot be downloaded ({first_line(error)}); give a file"
        ) from None
    return trained
