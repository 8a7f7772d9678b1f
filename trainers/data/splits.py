"""The splits of a data set, and batches of them that can be resumed bitwise.

Order and augmentation are pure functions of (seed, epoch, batch index), drawn from generators of their own: nothing
here reads or changes a global random state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from wtdiag.probes.errors import InputError

__all__ = ["ArraySplit", "Data", "Split", "array_data", "batch_count", "batches", "evaluation_batches", "majority"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Split(ABC):
    """The training or the test part of a data set.

    Attributes
    ----------
    targets : Tensor
        Class of every example, int64 (examples,).
    mean, std : tuple of float
        Mean and standard deviation of each channel, in units of the stored pixels (0 to 255 for images).
    reads_files : bool
        Whether every batch is read from the disk, so that it pays to prepare the next one in the background.
    """

    targets: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    reads_files: ClassVar[bool]

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def pixels(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the images at ``indices`` as uint8 (n, C, H, W), augmented if a generator is given."""

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
        mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (self.mean, self.std))
        x = self.pixels(indices, generator).to(torch.float32)
        return x.sub_(mean).div_(std), self.targets[indices]

    def example(self, index: int) -> Batch:
        """Return one example as a batch, without augmentation."""
        return self.batch(torch.tensor([index]))


@dataclass(frozen=True, eq=False)
class ArraySplit(Split):
    """A split in memory, as uint8 (examples, C, H, W)."""

    images: Tensor
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    reads_files: ClassVar[bool] = False

    def pixels(self, indices: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the images at ``indices`` as uint8 (n, C, H, W), augmented if a generator is given."""
        images = self.images[indices]
        return images if generator is None or self.augment is None else self.augment(images, generator)


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


def array_data(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Data:
    """Return a data set of (uint8 images, int64 targets) in memory, normalised by its training images."""
    _, channels, height, width = train[0].shape
    mean, std = _pixel_statistics(train[0])
    return Data(
        name,
        ArraySplit(train[1], mean, std, train[0], augment),
        ArraySplit(test[1], mean, std, test[0]),
        (channels, height, width),
        classes,
    )


def majority(split: Split) -> float:
    """Return the share of the most frequent class, which is the accuracy of always naming that class."""
    return int(torch.bincount(split.targets).max()) / len(split) if len(split) else 0.0


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
    augment: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Iterate over the training batches of one epoch, in random order, from batch ``start``.

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
    augment : bool
        Whether to augment, if the split has an augmentation.
    shard : (int, int)
        Rank r of this process among w: of each batch it takes the examples r, r + w, r + 2w ..., and those of all
        processes together are the batch of one.

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
    rank, world = shard
    order = torch.randperm(len(split), generator=_generator(seed, epoch, 0))

    def make(index: int) -> Batch:
        indices = order[index * batch_size : (index + 1) * batch_size]
        x, y = split.batch(indices, _generator(seed, epoch, 1 + index) if augment else None)
        return x[rank::world], y[rank::world]

    return _prefetched(make, range(start, count), background=split.reads_files)


def evaluation_batches(split: Split, batch_size: int, shard: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """Iterate over every example once, in stored order and without augmentation.

    With ``shard``, rank r of w processes takes the examples r, r + w, r + 2w ... of the split.

    Raises
    ------
    InputError
        If ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: {batch_size} is not a positive number of examples")
    rank, world = shard
    order = torch.arange(rank, len(split), world)

    def make(start: int) -> Batch:
        return split.batch(order[start : start + batch_size])

    return _prefetched(make, range(0, len(order), batch_size), background=split.reads_files)


def _generator(*key: int) -> torch.Generator:
    """Return a generator seeded by ``key``; keys of one length give independent streams."""
    (seed,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed))


def _prefetched(make: Callable[[int], Batch], indices: range, *, background: bool) -> Iterator[Batch]:
    """Yield ``make(index)`` for every index, preparing at most one batch ahead if ``background``."""
    if not background:
        yield from map(make, indices)
        return
    with ThreadPoolExecutor(1) as ahead:
        waiting: list[Future[Batch]] = []
        for index in indices:
            waiting.append(ahead.submit(make, index))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        for last in waiting:
            yield last.result()


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
