"""The splits of a data set, and batches of them that can be resumed bitwise.

Order and augmentation are pure functions of (seed, epoch, batch index), drawn from generators of their own: nothing
here reads or changes a global random state, and it makes no difference how many processes share the work.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data.loading import Wanted, loaded

Batch = tuple[Tensor, Tensor]
_CPU = torch.device("cpu")
_AT_ONCE = 2**20
"""Bytes of the small batches that are made at once, because to make a batch takes time however small it is."""


@dataclass(frozen=True, eq=False)
class Split(ABC):
    """The training or the test part of a data set.

    Attributes
    ----------
    targets : Tensor
        Class of every example, int64 (examples,).
    mean, std : tuple of float
        Mean and standard deviation of each channel, in units of the stored pixels (0 to 255 for images).
    """

    targets: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def reads_files(self) -> bool:
        """Whether every image is read from the disk, so that it pays to have processes for it."""
        return False

    @abstractmethod
    def pixels(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Return the images at ``indices`` as (n, C, H, W), augmented if there are ``draws``, a row for each."""

    def draws(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw the random numbers that augment ``count`` images, a row for each; None without augmentation."""
        return None

    def to(self, device: torch.device) -> Self:
        """Return the split with what it holds in memory moved to the device."""
        return self

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each as (C, 1, 1)."""
        mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (self.mean, self.std))
        return mean, std

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return images as float32 ``(pixel - mean) / std``."""
        mean, std = (values.to(pixels.device, non_blocking=True) for values in self._statistics)
        return pixels.to(torch.float32).sub(mean).div_(std)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """Return the examples at ``indices``, normalised to ``(pixel - mean) / std``.

        Parameters
        ----------
        indices : Tensor
            Numbers of the examples, int64 (n,).
        generator : torch.Generator, optional
            Source of the training augmentation; without it the evaluation transform is used.

        Returns
        -------
        x : Tensor
            float32 (n, C, H, W).
        y : Tensor
            int64 (n,).
        """
        draws = None if generator is None else self.draws(len(indices), generator)
        return self.normalised(self.pixels(indices, draws)), self.targets[indices]

    def example(self, index: int) -> Batch:
        """Return one example as a batch, without augmentation."""
        return self.batch(torch.tensor([index]))


class Augmentation(NamedTuple):
    """An augmentation of images in memory: ``draw(count, generator)`` gives a row of numbers for each image.

    ``apply(images, rows)`` gives the images that these rows make, on the device of the images.
    """

    draw: Callable[[int, torch.Generator], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ArraySplit(Split):
    """A split in memory, as (examples, C, H, W)."""

    images: Tensor
    augmentation: Augmentation | None = None

    def pixels(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Return the images at ``indices`` as (n, C, H, W), augmented if there are ``draws``, a row for each."""
        images = self.images[indices]
        return images if draws is None or self.augmentation is None else self.augmentation.apply(images, draws)

    def draws(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw the random numbers that augment ``count`` images, a row for each; None without augmentation."""
        return None if self.augmentation is None else self.augmentation.draw(count, generator)

    def to(self, device: torch.device) -> Self:
        """Return the split with its images on the device, where they are then augmented."""
        return replace(self, images=self.images.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, on which a model is trained and tested.

    Attributes
    ----------
    name : str
        Its name, as in :func:`trainers.data.names`.
    train, test : Split
        The two parts.
    shape : tuple of int
        Shape of one image, (C, H, W).
    classes : int
        Number of classes; targets are 0 to ``classes - 1``.
    """

    name: str
    train: Split
    test: Split
    shape: tuple[int, int, int]
    classes: int

    def to(self, device: torch.device) -> Data:
        """Return the data set with what it holds in memory moved to the device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def array_data(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    augmentation: Augmentation | None = None,
) -> Data:
    """Return a data set of (uint8 images, int64 targets) in memory, normalised by its training images."""
    _, channels, height, width = train[0].shape
    mean, std = _pixel_statistics(train[0])
    return Data(
        name,
        ArraySplit(train[1], mean, std, train[0], augmentation),
        ArraySplit(test[1], mean, std, test[0]),
        (channels, height, width),
        classes,
    )


def majority(split: Split) -> float:
    """Return the share of the most frequent class, which is the accuracy of always naming that class."""
    return int(torch.bincount(split.targets).max()) / len(split) if len(split) else 0.0


def noise_batch(data: Data, examples: int, *, seed: int, number: int) -> tuple[Tensor, Tensor]:
    """Return a batch of normal noise of variance 1 in the shape of a data set's inputs, and random labels.

    A batch is a function of the seed and of its number, so that it is the same in each epoch.

    Examples
    --------
    >>> from wtdiag.trainers.data import load
    >>> x, y = noise_batch(load("digits"), 5, seed=0, number=3)
    >>> x.shape, y.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5]))
    """
    drawn = _generator(seed, number, 0, 1)  # no other key has this length
    x = torch.randn(examples, *data.shape, generator=drawn, device="cpu")
    return x, torch.randint(data.classes, (examples,), generator=drawn, device="cpu")


def batch_count(split: Split, batch_size: int) -> int:
    """Return the number of batches that :func:`batches` yields in an epoch.

    Raises
    ------
    InputError
        If ``batch_size`` is not positive, or no batch would have two examples.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is not a positive number of examples")
    whole, rest = divmod(len(split), batch_size)
    count = whole + (rest > 1)  # batch norm cannot train on a single remaining example
    if count == 0:
        raise InputError(f"data: {len(split)} training example(s) cannot fill a batch; two are needed")
    return count


def batches(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    steps: int | None = None,
    augment: bool = True,
    part: Callable[[int], slice] = slice,
    workers: int | None = 0,
    device: torch.device = _CPU,
) -> Iterator[Batch]:
    """Iterate over training batches in random order, from batch ``start`` of an epoch.

    Batch i is a pure function of (split, batch_size, seed, epoch, i): an epoch resumed at ``start`` yields bitwise the
    same batches as one without the interruption. The last batch is smaller if the examples do not divide evenly, and is
    left out if it would have a single example.

    Parameters
    ----------
    split : Split
        The training split.
    batch_size : int
        Examples per batch.
    seed, epoch : int
        Numbers that determine order and augmentation; not negative.
    start : int
        Index of the first batch to yield.
    steps : int, optional
        Number of batches to yield, from this epoch and those that follow it. By default, the rest of this epoch.
    augment : bool
        Whether to augment, if the split has an augmentation.
    part : callable
        The part of a batch of so many examples that this process takes, a slice; by default, all of it.
    workers : int, optional
        Number of processes that read files ahead; 0: none. By default, one for each core of this process's share.
    device : torch.device
        The device of the batches.

    Raises
    ------
    InputError
        If one of the numbers is out of range.

    Examples
    --------
    >>> from wtdiag.trainers.data import load
    >>> train = load("digits").train
    >>> whole = list(batches(train, 256, seed=0, epoch=3))
    >>> [len(y) for x, y in whole]
    [256, 256, 256, 256, 256, 157]
    >>> resumed = batches(train, 256, seed=0, epoch=3, start=4)
    >>> all(torch.equal(x, x0) for (x, y), (x0, y0) in zip(resumed, whole[4:], strict=True))
    True
    """
    count = batch_count(split, batch_size)
    for argument, value in (("seed", seed), ("epoch", epoch)):
        if value < 0:
            raise InputError(f"{argument}: {value} is negative")
    if not 0 <= start <= count:
        raise InputError(f"start: {start} is not between 0 and the epoch's {count} batches")

    def wanted() -> Iterator[Wanted]:
        for now in itertools.count(epoch):
            order = torch.randperm(len(split), generator=_generator(seed, now, 0))
            for index in range(start if now == epoch else 0, count):
                indices = order[index * batch_size : (index + 1) * batch_size]
                # What is drawn for the batch of all processes does not depend on their number.
                draws = split.draws(len(indices), _generator(seed, now, 1 + index)) if augment else None
                mine = part(len(indices))
                yield indices[mine], None if draws is None else draws[mine]

    steps = count - start if steps is None else steps
    return _made(split, islice(wanted(), steps), steps, workers, device)


def evaluation_batches(
    split: Split,
    batch_size: int,
    *,
    workers: int | None = 0,
    device: torch.device = _CPU,
) -> Iterator[Batch]:
    """Iterate over every example once, in stored order and without augmentation.

    Parameters
    ----------
    split : Split
        The split.
    batch_size : int
        Examples per batch.
    workers, device
        As for :func:`batches`.

    Raises
    ------
    InputError
        If ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is not a positive number of examples")
    parts = [part for part in torch.split(torch.arange(len(split)), batch_size) if len(part)]
    return _made(split, ((indices, None) for indices in parts), len(parts), workers, device)


def _made(
    split: Split, wanted: Iterator[Wanted], count: int, workers: int | None, device: torch.device
) -> Iterator[Batch]:
    """Yield the wanted batches, normalised on the device."""
    if split.reads_files:
        asked, wanted = itertools.tee(wanted)
        pixels = loaded(split, wanted, count, workers, pinned=device.type == "cuda")
        for (indices, _), images in zip(asked, pixels, strict=False):
            yield (
                split.normalised(images.to(device, non_blocking=True)),
                split.targets[indices].to(device, non_blocking=True),
            )
        return
    at_once = 1
    while group := list(islice(wanted, at_once)):
        places, draws = [each for each, _ in group], [rows for _, rows in group if rows is not None]
        joined = torch.cat(places)
        made = split.pixels(joined, torch.cat(draws) if draws else None)
        x = split.normalised(made.to(device, non_blocking=True))
        y = split.targets[joined].to(device, non_blocking=True)
        sizes = [len(each) for each in places]
        yield from zip(torch.split(x, sizes), torch.split(y, sizes), strict=True)
        at_once = max(1, _AT_ONCE * len(group) // max(1, x.nbytes))


def _generator(*key: int) -> torch.Generator:
    """Return a generator seeded by ``key``; keys of one length give independent streams."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed))


def _pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the exact mean and standard deviation of every channel of uint8 (examples, C, H, W)."""
    value = torch.arange(256, dtype=torch.float64)
    mean, std = [], []
    for channel in images.unbind(1):
        # The 256 values are counted, which needs no float copy of the data set.
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean.append(float(share @ value))
        std.append(float(share @ (value - mean[-1]) ** 2) ** 0.5 or 1.0)  # a channel without contrast becomes 0
    return tuple(mean), tuple(std)
