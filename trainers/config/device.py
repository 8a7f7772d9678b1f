"""The device on which a run computes, and the run's own random state there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from wtdiag.probes.errors import InputError, first_line


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA if it is available, else the CPU.

    Raises
    ------
    InputError
        If it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: {name!r} cannot be used ({first_line(error)}); try auto or cpu") from None
    return device


def take_share(index: int, threads: int) -> None:
    """Give this process, the one at ``index`` among several, its number of threads and its turn among the GPUs."""
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(index % torch.cuda.device_count())


def gpus() -> int:
    """Return the number of GPUs."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class RandomState:
    """A random state separate from the global one, on the CPU and on the run's device.

    Examples
    --------
    >>> mine = RandomState(torch.device("cpu"), seed=0)
    >>> _ = torch.manual_seed(1)
    >>> with mine.active():
    ...     first = torch.rand(1)
    >>> torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(1)))
    True
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device = device
        with self._restored():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every other device too
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            self.state = self.now()

    def now(self) -> list[Tensor]:
        """Return the present global random state."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make this the global random state in the block, and restore the other one afterwards."""
        with self._restored():
            self._set(self.state)
            try:
                yield
            finally:
                self.state = self.now()

    @contextmanager
    def _restored(self) -> Iterator[None]:
        outer = self.now()
        try:
            yield
        finally:
            self._set(outer)

    def _set(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)
