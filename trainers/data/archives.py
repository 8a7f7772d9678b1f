"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, with the formats, checksums and downloads of torchvision."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision import datasets
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import check_integrity, extract_archive

from wtdiag.probes.errors import InputError, one_line
from wtdiag.trainers.data.checks import reading, require
from wtdiag.trainers.data.splits import Augmentation, Data, array_data

SOURCES = {
    "mnist": datasets.MNIST,
    "fashion-mnist": datasets.FashionMNIST,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}
FETCH = "--download fetches it"


def read_archive(name: str, data_dir: Path, *, download: bool) -> Data:
    """Read the data set ``name`` below ``data_dir``, in torchvision's layout.

    MNIST is in ``{MNIST,FashionMNIST}/raw/*-ubyte[.gz]``, CIFAR in ``cifar-10-batches-py/`` or ``cifar-100-python/`` or
    its archive. With ``download``, missing or damaged files are downloaded.
    """
    source = SOURCES[name]
    read = _read_cifar if issubclass(source, datasets.CIFAR10) else _read_mnist
    try:
        return read(name, source, data_dir)
    except InputError:
        if not download:
            raise
    _download(name, source, data_dir)
    return read(name, source, data_dir)


def _download(name: str, source: Any, data_dir: Path) -> None:
    """Let torchvision download and check everything in a temporary folder, then move the whole files into place."""
    # The progress bar is shown on stderr if that is a terminal, and never on stdout.
    notes = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(prefix=".download-", dir=data_dir) as aside,
            redirect_stdout(notes),
            redirect_stderr(notes),
        ):
            source(aside, download=True)
            for file in filter(Path.is_file, Path(aside).rglob("*")):
                target = data_dir / file.relative_to(aside)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except (RuntimeError, OSError, HTTPException) as error:
        raise InputError(f"{data_dir}: {name} cannot be downloaded into this folder ({one_line(error)})") from error


def _read_mnist(name: str, source: type[datasets.MNIST], data_dir: Path) -> Data:
    raw = data_dir / source.__name__ / "raw"
    parts: list[tuple[Tensor, Tensor]] = []
    for part in ("train", "t10k"):
        path = raw / f"{part}-images-idx3-ubyte"
        images = _read_idx(path, read_image_file)
        targets = _read_idx(raw / f"{part}-labels-idx1-ubyte", read_label_file)
        n = len(targets)
        if images.shape != (n, 28, 28) or targets.max() > 9:
            raise InputError(
                f"{path}: expected one 28x28 image for each label from 0 to 9; found images "
                f"{tuple(images.shape)} for {n} labels up to {targets.max()}"
            )
        parts.append((images[:, None], targets))
    return array_data(name, parts[0], parts[1], classes=10)


def _read_idx(path: Path, read: Callable[[str], Tensor]) -> Tensor:
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and packed.is_file():
        with reading(packed, f"a whole gzip file; {FETCH}"), TemporaryDirectory() as folder:
            return read(extract_archive(str(packed), folder))
    require(path.is_file(), path, f"this IDX file or {packed.name}; {FETCH}")
    with reading(path, f"a whole IDX file; {FETCH}"):
        return read(str(path))


def _read_cifar(name: str, source: type[datasets.CIFAR10], data_dir: Path) -> Data:
    folder, packed = data_dir / source.base_folder, data_dir / source.filename
    if folder.is_dir() or not packed.is_file():
        require(folder.is_dir(), folder, f"this folder of Python batches or {packed.name}; {FETCH}")
        return _read_cifar_folder(name, source, data_dir)
    if not check_integrity(packed, source.tgz_md5):
        raise InputError(f"{packed}: damaged; expected the official archive, md5 {source.tgz_md5}; {FETCH}")
    with reading(packed, "the official archive"), TemporaryDirectory() as aside:
        extract_archive(str(packed), aside)
        return _read_cifar_folder(name, source, Path(aside))


def _read_cifar_folder(name: str, source: type[datasets.CIFAR10], root: Path) -> Data:
    # The format is pickle, which can run code. torchvision verifies the md5 of every file before it reads any, and no
    # file is read in another way.
    try:
        train, test = (source(str(root), train=train) for train in (True, False))
    except Exception as error:
        meta = (source.meta["filename"], source.meta["md5"])
        for file, md5 in (*source.train_list, *source.test_list, meta):
            path = root / source.base_folder / file
            require(path.is_file(), path, f"this official file; {FETCH}")
            if not check_integrity(path, md5):
                raise InputError(f"{path}: damaged; expected the official file, md5 {md5}; {FETCH}") from None
        raise InputError(f"{root}: cannot be read; expected {name} ({one_line(error)})") from error
    parts = [
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    ]
    return array_data(name, parts[0], parts[1], classes=len(train.classes), augmentation=CROP_AND_FLIP)


def _draw_crops(count: int, generator: torch.Generator) -> Tensor:
    """Draw for each image the top and the left of its crop, from 0 to 8, and whether it is flipped."""
    top, left = torch.randint(0, 9, (2, count), generator=generator)
    return torch.stack([top, left, torch.rand(count, generator=generator) < 0.5], dim=1)


def _crop_and_flip(images: Tensor, crops: Tensor) -> Tensor:
    n, channels, height, width = images.shape
    top, left, flipped = crops.to(images.device, non_blocking=True).unbind(1)
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    cropped = pad(images, (4, 4, 4, 4))[
        torch.arange(n, device=images.device)[:, None, None, None],
        torch.arange(channels, device=images.device)[:, None, None],
        (top[:, None] + rows)[:, None, :, None],
        (left[:, None] + columns)[:, None, None, :],
    ]
    return torch.where(flipped.bool()[:, None, None, None], cropped.flip(-1), cropped)


CROP_AND_FLIP = Augmentation(_draw_crops, _crop_and_flip)
"""Pad by 4 black pixels, crop to the old size at random, and flip with probability 1/2.

References
----------
He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2.
"""
