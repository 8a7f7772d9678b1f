"""Holding out a part of the training set for testing, so that a search for settings never uses the test set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data.splits import Data, Split

_SEED = 20_200_301
"""Seed of the draw, the same for all runs, so that no trial trains on examples on which another is tested."""


@dataclass(frozen=True, eq=False)
class Part(Split):
    """Some examples of a split, those at ``indices``, with the split's own normalisation and augmentation."""

    whole: Split
    indices: Tensor

    @property
    def reads_files(self) -> bool:
        """Whether the whole split reads its images from the disk."""
        return self.whole.reads_files

    def pixels(self, indices: Tensor, draws: Tensor | None) -> Tensor:
        """Return the images at ``indices`` of this part."""
        return self.whole.pixels(self.indices[indices], draws)

    def draws(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw the random numbers that augment ``count`` images as the whole split does."""
        return self.whole.draws(count, generator)

    def to(self, device: torch.device) -> Part:
        """Return the part with what the whole split holds in memory moved to the device."""
        return dataclasses.replace(self, whole=self.whole.to(device))


def hold_out(data: Data, share: float) -> Data:
    """Return the data with ``share`` of the training examples as the test set; the draw is always the same.

    Examples are drawn class by class, so that small classes keep their share.

    Raises
    ------
    InputError
        If the share is not between 0 and 1, or leaves either part without an example.

    Examples
    --------
    >>> from wtdiag.trainers.data import load
    >>> data = hold_out(load("digits"), 0.2)
    >>> len(data.train), len(data.test)
    (1150, 287)
    """
    targets = data.train.targets
    generator = torch.Generator().manual_seed(_SEED)
    held = torch.zeros(len(targets), dtype=torch.bool)
    for number in range(data.classes):
        members = (targets == number).nonzero().flatten()
        drawn = members[torch.randperm(len(members), generator=generator)]
        held[drawn[: round(share * len(members))]] = True
    if not 0 < share < 1 or held.all() or not held.any():
        raise InputError(
            f"holdout: expected a share between 0 and 1 that leaves examples in both parts, "
            f"got {share!r} of {len(held)}"
        )
    train, test = (part(data.train, chosen.nonzero().flatten()) for chosen in (~held, held))
    return dataclasses.replace(data, train=train, test=test)


def part(whole: Split, indices: Tensor) -> Part:
    """Return the examples of a split at ``indices``, in their order.

    Examples
    --------
    >>> from wtdiag.trainers.data import load
    >>> len(part(load("digits").test, torch.tensor([5, 7])))
    2
    """
    return Part(whole.targets[indices], whole.mean, whole.std, whole, indices)
