"""A run's trained network and its data, for measures that need more than the probe batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wtdiag.probes.errors import InputError
from wtdiag.trainers.config.datasets import load_data
from wtdiag.trainers.config.device import choose_device
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import Data, Split
from wtdiag.trainers.observe.open_run import ModelRun


@dataclass(frozen=True)
class Recorded:
    """The network of a run's last snapshot on a device, with the data that it learned from.

    Attributes
    ----------
    run, step, settings
        The run, the step of the snapshot, and the run's settings.
    model
        The network, on ``device``.
    data
        The data set, in memory where it was loaded.
    """

    run: ModelRun
    step: int
    settings: Settings
    model: nn.Module
    data: Data
    device: torch.device

    def examples(self, split: Split, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return at most ``count`` examples of a split, drawn with a seed, without augmentation, on the device."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(split), generator=generator)[:count]
        x, y = split.batch(order)
        return x.to(self.device, self.dtype), y.to(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.model.parameters()).dtype


def recorded(run: ModelRun, device: str = "auto") -> Recorded:
    """Return the last network of a run that ``wtdiag train`` made, and its data.

    Raises
    ------
    InputError
        If the run was recorded from another loop, has no snapshot or is not finite, or the data cannot be loaded.
    """
    if not run.is_ours:
        raise InputError(f"run: {run.path} was not made by `wtdiag train`, so its network and data cannot be rebuilt")
    if not run.steps.size:
        raise InputError(f"{run.path}: holds no snapshots; expected at least one")
    step = int(run.steps[-1])
    settings = run.settings()
    place = choose_device(device)
    model = run.model(step).to(place)
    if not all(bool(torch.isfinite(each).all()) for each in model.parameters()):
        raise InputError(f"{run.path}: the weights at step {step} are not finite; expected a run that did not diverge")
    data = load_data(dataclasses.replace(settings, download=False))  # the settings may come from anyone
    return Recorded(run, step, settings, model, data, place)


def in_batches(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 250) -> Tensor:
    """Return what a function makes of the examples, computed in batches without gradients."""
    with torch.no_grad():
        return torch.cat([function(x[start : start + size]) for start in range(0, len(x), size)])


def right(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return for each example whether the network, in evaluation mode, answers with its class."""
    model.eval()
    return np.asarray((in_batches(model, x).argmax(1) == y).cpu().numpy(), dtype=np.bool_)
