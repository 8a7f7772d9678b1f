"""Reading of batches from files by torch's DataLoader, in processes of their own, ahead of the training."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wtdiag.probes.errors import InputError, first_line

if TYPE_CHECKING:
    from wtdiag.trainers.data.splits import Split

Wanted = tuple[Tensor, Tensor | None]
"""The indices of the examples of a batch, and the numbers that augment them."""
_MOST_WORKERS = 16


def default_workers() -> int:
    """Return the number of processes that read files: one for each core of this process's share, at most 16.

    A process that a pool has started may have no children; it reads itself.
    """
    if multiprocessing.current_process().daemon:
        return 0
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    # The launcher of distributed training gives each process one thread, whatever its share.
    share = len(os.sched_getaffinity(0)) // int(processes) if processes.isdigit() else torch.get_num_threads()
    return min(max(share, 1), _MOST_WORKERS)


def loaded(
    split: Split, wanted: Iterable[Wanted], count: int, workers: int | None, *, pinned: bool
) -> Iterator[Tensor]:
    """Yield the pixels of ``count`` wanted batches in their order; ``workers`` processes read them ahead.

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    most = count if count > 1 else 0  # nothing is read ahead of a single batch
    loader = DataLoader(
        _Batches(split),
        sampler=((indices.numpy(), None if draws is None else draws.numpy()) for indices, draws in wanted),
        batch_size=None,
        num_workers=min(default_workers() if workers is None else workers, most),
        pin_memory=pinned,
        generator=torch.Generator(),  # or it would draw from the global random state
    )
    batches = iter(loader)
    try:
        while (pixels := next(batches, None)) is not None:
            if isinstance(pixels, InputError):
                raise pixels
            yield pixels
    finally:
        del batches  # with it, the processes end


@contextmanager
def losses_named() -> Iterator[None]:
    """Let the loss of a process that reads files end the block with one line.

    PyTorch notices it by a signal, and raises an error wherever this process is.

    Raises
    ------
    InputError
        If one is killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"workers: a process that reads images was lost ({first_line(error)}); --workers 0 needs none"
        ) from None


class _Batches(Dataset[Any]):
    """A data set whose items are whole batches, asked for by (indices, draws)."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, wanted: Any) -> Tensor | InputError:
        indices, draws = wanted
        try:
            return self._split.pixels(torch.from_numpy(indices), None if draws is None else torch.from_numpy(draws))
        except InputError as error:
            return error  # raised here, it would reach the user with the traceback of another process
