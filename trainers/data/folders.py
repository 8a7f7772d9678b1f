"""Image folders and ImageNet, which torchvision lists and transforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder, ImageNet
from torchvision.datasets.folder import is_image_file
from torchvision.datasets.imagenet import META_FILE, load_meta_file
from torchvision.transforms import v2

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data.checks import reading, require
from wtdiag.trainers.data.splits import Data, Split

# ImageNet's statistics in units of pixels, with which published models for photographs are trained.
MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
STD = tuple(255 * value for value in (0.229, 0.224, 0.225))


@dataclass(frozen=True, eq=False)
class FolderSplit(Split):
    """A split whose images stay on disk until a batch needs them.

    For training, images are cropped and resized at random and flipped horizontally at random. For evaluation, the
    shorter side is resized to 8/7 of ``size`` (256 for 224), and the central crop is taken.
    """

    paths: tuple[str, ...]
    size: int

    @property
    def reads_files(self) -> bool:
        """Whether every image is read from the disk: yes."""
        return True

    def pixels(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Return the images at ``indices`` as uint8 (n, 3, size, size), each augmented by its own seed if there are."""
        seeds = [None] * len(indices) if draws is None else draws.tolist()
        return torch.stack(list(map(self._decode, indices.tolist(), seeds)))

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw a seed for each of ``count`` images."""
        return torch.randint(2**63 - 1, (count,), generator=generator)

    def _decode(self, index: int, seed: int | None) -> Tensor:
        path = self.paths[index]
        with reading(path, "a whole image file"):
            image = read_rgb(path)
        if seed is None:
            central: Tensor = _central(self.size)(image)
            return central
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from the global random state
            torch.default_generator.manual_seed(seed)
            pixels: Tensor = _augmented(self.size)(image)
        return pixels


@cache
def _augmented(size: int) -> v2.Transform:
    """Return the transform for training: a crop of 8 to 100 % of the area, resized, flipped with probability 1/2."""
    return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), v2.PILToTensor()])


@cache
def _central(size: int) -> v2.Transform:
    """Return the transform for evaluation."""
    return v2.Compose([v2.Resize(round(size * 8 / 7)), v2.CenterCrop(size), v2.PILToTensor()])


def read_rgb(path: str | Path) -> Image.Image:
    """Return the image in ``path`` as RGB with 8 bits per channel; more bits are scaled by the range of their type.

    Pillow itself would clip grey values at 255.

    Raises
    ------
    InputError
        If it holds 32-bit whole numbers or floating-point numbers, whose value for white is not known.
    """
    with open(path, "rb") as file:
        image: Image.Image = Image.open(file)
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            bits_per_sample = 258  # TIFF's tag
            white = 4095 if getattr(image, "tag_v2", {}).get(bits_per_sample) == (12,) else 65535
            image = Image.fromarray((np.asarray(image, np.float64) * 255 / white).round().astype(np.uint8))
        elif image.mode in ("I", "F"):
            numbers = "floating-point numbers" if image.mode == "F" else "signed or 32-bit whole numbers"
            raise InputError(f"{path}: holds {numbers}, whose range is not known; expected 8 or 16 bits per channel")
        return image.convert("RGB")


def read_imagefolder(data_dir: Path, image_size: int) -> Data:
    """Read ``data_dir/{train,val}/<class>/*``, in any image format that torchvision lists.

    Hidden files and folders, and those that systems and programs leave behind, are skipped.
    """
    splits = []
    for part in ("train", "val"):
        folder = data_dir / part
        require(folder.is_dir(), folder, "a folder with one folder of images per class")
        with reading(folder, "images in one folder per class"):
            splits.append(_Folder(str(folder), is_valid_file=_is_image_of(folder)))
    train, test = splits
    return _data("imagefolder", data_dir, train, test, image_size)


def read_imagenet(data_dir: Path, image_size: int) -> Data:
    """Read ImageNet 2012 as torchvision unpacks it: ``meta.bin``, ``train/<wnid>/*``, ``val/<wnid>/*``."""
    unpacked = f"as torchvision.datasets.ImageNet({str(data_dir)!r}, split) unpacks it"
    meta = data_dir / META_FILE
    require(meta.is_file(), meta, f"the devkit's class list, {unpacked}")
    with reading(meta, f"the devkit's class list, {unpacked}"):
        wnid_to_names, _ = load_meta_file(str(data_dir))  # with weights_only=True: no code in it can run
        wnid_to_names.keys()
    splits = []
    for part in ("train", "val"):
        folder = data_dir / part
        # This is checked here, because torchvision would unpack archives into data_dir if the folder is missing.
        require(folder.is_dir(), folder, f"the {part} images, {unpacked}")
        with reading(folder, f"one folder of images for each class of {META_FILE}, {unpacked}"):
            splits.append(_ImageNet(str(data_dir), part, is_valid_file=_is_image_of(folder)))
    train, test = splits
    return _data("imagenet", data_dir, train, test, image_size)


class _Folder(ImageFolder):  # type: ignore[misc]  # torchvision is not typed
    """A folder of images whose classes are its folders, except hidden ones and those left by systems and programs."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = [name for name in super().find_classes(directory)[0] if not _is_junk(name)]
        if not names:
            raise FileNotFoundError(f"no class folder in {directory}")
        return names, {name: index for index, name in enumerate(names)}


class _ImageNet(_Folder, ImageNet):  # type: ignore[misc]
    """ImageNet, without the same hidden and left-over folders."""


def _is_image_of(folder: Path) -> Callable[[str], bool]:
    return lambda path: is_image_file(path) and not any(map(_is_junk, Path(path).relative_to(folder).parts))


_JUNK = ("__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN", "System Volume Information", "lost+found")


def _is_junk(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that archivers, file systems, servers and Python leave."""
    return name.startswith(".") or name in _JUNK


def _data(name: str, data_dir: Path, train: ImageFolder, test: ImageFolder, size: int) -> Data:
    # ImageNet's `classes` are its English names; the folders' names are its `wnids`.
    classes = [getattr(part, "wnids", part.classes) for part in (train, test)]
    if classes[0] != classes[1]:
        unmatched = min(set(classes[0]) ^ set(classes[1]))
        raise InputError(f"{data_dir}: class {unmatched!r} is in only one of train and val; expected it in both")
    if len(classes[0]) < 2:
        raise InputError(f"{data_dir}: holds only the class {classes[0][0]!r}; expected at least two")
    splits = [
        FolderSplit(torch.tensor(part.targets), MEAN, STD, tuple(path for path, _ in part.samples), size)
        for part in (train, test)
    ]
    return Data(name, splits[0], splits[1], (3, size, size), len(classes[0]))
