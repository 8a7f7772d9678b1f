"""Noise in the shape of a data set, with which a run can be tried without the data set's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.trainers.data import FOLDERS, names
from wtdiag.trainers.data.splits import Data, Split

# Numbers of training and test examples, shape of an image, number of classes.
_DECLARED = {
    "digits": (1437, 360, (1, 8, 8), 10),
    "glyphs": (6048, 1512, (1, 16, 16), 36),
    "rows": (1437, 360, (8, 8, 1), 10),
    "copy": (4000, 1000, (12, 10, 1), 8),
    "adding": (4000, 1000, (2, 20, 1), 9),
    "mnist": (60_000, 10_000, (1, 28, 28), 10),
    "fashion-mnist": (60_000, 10_000, (1, 28, 28), 10),
    "cifar10": (50_000, 10_000, (3, 32, 32), 10),
    "cifar100": (50_000, 10_000, (3, 32, 32), 100),
    "imagenet": (1_281_167, 50_000, (3, 224, 224), 1000),
}
# The first files and folders below the data folder; the readers check for the rest.
_FILES = {
    "mnist": ("MNIST",),
    "fashion-mnist": ("FashionMNIST",),
    "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz"),
    "imagefolder": ("train", "val"),
    "imagenet": ("meta.bin", "train", "val"),
    "npz": ("",),
}
# Mean and standard deviation of a byte that takes each of its 256 values equally often.
_MEAN, _STD = 255 / 2, ((256**2 - 1) / 12) ** 0.5


@dataclass(frozen=True, eq=False)
class SyntheticSplit(Split):
    """A split of noise images, each drawn from its own number whenever it is needed.

    Attributes
    ----------
    shape : tuple of int
        Shape of one image, (C, H, W).
    first : int
        Number of the first image; splits with different numbers share no image.
    """

    shape: tuple[int, int, int]
    first: int

    @classmethod
    def of(cls, count: int, shape: tuple[int, int, int], classes: int, first: int = 0) -> SyntheticSplit:
        """Return a split of ``count`` images, whose classes follow each other in turn.

        Examples
        --------
        >>> x, y = SyntheticSplit.of(4, (1, 8, 8), classes=3).batch(torch.arange(4))
        >>> x.shape, y.tolist()
        (torch.Size([4, 1, 8, 8]), [0, 1, 2, 0])
        """
        channels = shape[0]
        return cls(torch.arange(count) % classes, (_MEAN,) * channels, (_STD,) * channels, shape, first)

    def pixels(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Return the images at ``indices`` as uint8 (n, C, H, W); noise is not augmented."""
        return torch.stack([self._draw(self.first + index) for index in indices.tolist()])

    def _draw(self, number: int) -> Tensor:
        return torch.randint(256, self.shape, generator=torch.Generator().manual_seed(number), dtype=torch.uint8)


def synthetic(name: str, image_size: int | None = None) -> Data:
    """Return noise with a data set's numbers of examples and classes and its size of images.

    Parameters
    ----------
    name : str
        Name of the data set, as for :func:`trainers.data.load`.
    image_size : int, optional
        Height and width in pixels, as for :func:`trainers.data.load`.

    Raises
    ------
    InputError
        If the name is unknown, if its images have another size, or if only its files tell the number of classes.

    Examples
    --------
    >>> data = synthetic("imagenet")
    >>> len(data.train), len(data.test), data.shape, data.classes
    (1281167, 50000, (3, 224, 224), 1000)
    """
    check_one_of("data", name, names())
    if name not in _DECLARED:
        raise InputError(f"data: the classes and images of {name!r} are known only from its files, which are missing")
    train, test, shape, classes = _DECLARED[name]
    if image_size is not None:
        if name not in ("glyphs", *FOLDERS) or image_size < 8:
            raise InputError(f"image_size: {name!r} cannot have images of {image_size} pixels a side")
        shape = shape[0], image_size, image_size
    parts = SyntheticSplit.of(train, shape, classes), SyntheticSplit.of(test, shape, classes, first=train)
    return Data(name, *parts, shape, classes)


def files_found(name: str, data_dir: str | None) -> bool:
    """Return whether any of a data set's files are in the folder, even damaged ones; True if it needs none.

    Examples
    --------
    >>> files_found("digits", None), files_found("imagenet", None)
    (True, False)
    """
    if name not in _FILES:
        return True
    return data_dir is not None and any((Path(data_dir).expanduser() / file).exists() for file in _FILES[name])
