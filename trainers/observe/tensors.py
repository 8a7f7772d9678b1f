"""Tensors as NumPy arrays and back, without loss, for files that can be read without PyTorch."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.trainers.layers.convert import is_dense


def to_numpy(tensor: Tensor) -> tuple[np.ndarray[Any, Any], str]:
    """Return the tensor as an array, and the name of its dtype if NumPy lacks it and a wider dtype must hold it."""
    try:
        return tensor.numpy(), ""
    except TypeError:
        wider = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
        return wider.numpy(), str(tensor.dtype).removeprefix("torch.")


def from_numpy(array: np.ndarray[Any, Any], dtype: str) -> Tensor:
    """Return the tensor from which `to_numpy` made the array.

    Raises
    ------
    InputError
        If ``dtype`` is not the name of a torch dtype.

    Examples
    --------
    >>> from_numpy(*to_numpy(torch.ones(2, dtype=torch.bfloat16)))
    tensor([1., 1.], dtype=torch.bfloat16)
    """
    tensor = torch.from_numpy(array)
    if not dtype:
        return tensor
    own = getattr(torch, dtype, None)
    if not isinstance(own, torch.dtype):
        raise InputError(f"torch_dtype is {dtype!r:.40}; expected the name of a torch dtype")
    return tensor.to(own)


def is_recordable(entry: Any) -> bool:
    """Return whether a snapshot can hold an entry of a state_dict, that is, whether it is a dense tensor of numbers.

    Examples
    --------
    >>> is_recordable(torch.ones(2)), is_recordable(torch.ones(2).to_sparse()), is_recordable("text")
    (True, False, False)
    """
    return isinstance(entry, Tensor) and is_dense(entry) and _has_array(entry.dtype)


@cache
def _has_array(dtype: torch.dtype) -> bool:
    """Return whether `to_numpy` can turn a tensor of this dtype into an array."""
    try:
        to_numpy(torch.empty(0, dtype=dtype, device="cpu"))
    except (TypeError, RuntimeError):
        return False
    return True
