"""Data sets of one's own, from a NumPy file: arrays X and y for training, X_test and y_test for testing."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data.checks import reading, require
from wtdiag.trainers.data.splits import ArraySplit, Data

ARRAYS = ("X", "y", "X_test", "y_test")
FORM = "arrays X, y, X_test and y_test as numpy.savez writes them"


def read_npz(path: Path) -> Data:
    """Read ``path``; each feature is brought to mean 0 and standard deviation 1 by the training examples.

    X is (examples, features), (examples, height, width) or (examples, channels, height, width), of floats, integers or
    truth values; pixels are brought to that mean and deviation channel by channel. y is (examples,), of integers from
    0.
    """
    require(path.is_file(), path, f"a NumPy file with {FORM}")
    with reading(path, f"a NumPy file with {FORM}"):
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path}: is not an npz file; expected {FORM}")
        with np.load(path, allow_pickle=False) as file:  # a pickle could run code
            if missing := [name for name in ARRAYS if name not in file.files]:
                raise InputError(f"{path}: has no {', '.join(missing)}; expected {FORM}")
            x, y, x_test, y_test = (file[name] for name in ARRAYS)
    images = [_examples(path, name, array) for name, array in (("X", x), ("X_test", x_test))]
    classes = int(_targets(path, "y", y, len(x)).max()) + 1
    found = np.unique(y)
    if len(found) < max(classes, 2):
        listed = ", ".join(map(str, found[:8])) + ", ..." * (len(found) > 8)
        raise InputError(f"{path}: y holds the classes {listed}; expected all from 0 to the largest, at least two")
    if (largest := int(_targets(path, "y_test", y_test, len(x_test)).max())) >= classes:
        raise InputError(f"{path}: y_test holds the class {largest}; expected those of y, 0 to {classes - 1}")
    shape = images[0].shape[1:]
    if images[1].shape[1:] != shape:
        raise InputError(f"{path}: X_test has examples of shape {x_test.shape[1:]}; expected that of X, {x.shape[1:]}")
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = (images[0].mean((0, 2, 3), keepdims=True), images[0].std((0, 2, 3), keepdims=True))
    if not np.isfinite(std).all():
        raise InputError(f"{path}: X holds numbers up to {np.abs(images[0]).max():.0e}, too large to scale")
    std[std == 0] = 1.0  # a feature that never changes becomes 0
    splits = []
    for array, target in zip(images, (y, y_test), strict=True):
        scaled = torch.from_numpy(((array - mean) / std).astype(np.float32))
        splits.append(ArraySplit(torch.from_numpy(target.astype(np.int64)), (0.0,), (1.0,), scaled))
    return Data("npz", splits[0], splits[1], (shape[0], shape[1], shape[2]), classes)


def _examples(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    """Return examples as (n, channels, height, width), where a feature is a channel of one pixel."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} holds {array.dtype}; expected floats, integers or truth values")
    if array.ndim not in (2, 3, 4) or not array.size:
        raise InputError(
            f"{path}: {name} has shape {array.shape}; expected (examples, features), (examples, height, width) or "
            "(examples, channels, height, width)"
        )
    if array.ndim == 4 and array.shape[1] == array.shape[2] > 4 >= array.shape[3]:
        raise InputError(
            f"{path}: {name} has shape {array.shape}, which looks like square images with their channels last; "
            f"expected (examples, channels, height, width): {name}.transpose(0, 3, 1, 2)"
        )
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: {name} holds numbers that are not finite")
    if array.ndim == 3:
        return values[:, None]
    return values[:, :, None, None] if array.ndim == 2 else values


def _targets(path: Path, name: str, array: NDArray[Any], count: int) -> NDArray[Any]:
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise InputError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}; expected {count} integers, one for each example"
        )
    if array.min() < 0:
        raise InputError(f"{path}: {name} holds the class {array.min()}; expected integers from 0")
    return array
