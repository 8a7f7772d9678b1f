"""The progress of a run, and how it is resumed bitwise from the state in its checkpoint."""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from wtdiag.probes.errors import InputError, first_line
from wtdiag.probes.records import rundir
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import CHECKPOINT, CONFIG, open_run
from wtdiag.trainers.config.device import RandomState
from wtdiag.trainers.loop.distributed import Ranks
from wtdiag.trainers.loop.launch import check_modes, status
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.record import checkpoint
from wtdiag.trainers.record.spikes import Trouble

_KEPT = ("step", "loss", "accuracy", "test_accuracy")
"""The fields of the progress that a checkpoint holds."""


@dataclass
class TrainingProgress:
    """The progress of a run after a step."""

    step: int
    total: int
    loss: float = math.nan
    accuracy: float = math.nan
    test_accuracy: float = math.nan
    throughput: float = math.nan
    tested_on: str = "test"
    status: str = "running"
    reason: str = ""


Beginning = Literal["make", "replace", "resume"]


def check_beginning(out: Path, *, resume: bool, force: bool) -> Beginning:
    """Return how a run in ``out`` is to begin, and require that it can, without changing anything.

    Raises
    ------
    InputError
        If ``resume`` finds a run that cannot be resumed, or ``out`` holds one and neither ``resume`` nor ``force`` is
        given.
    """
    check_modes(resume=resume, force=force)
    if resume and status(out) in ENDED:
        raise InputError(f"resume: {out} is {status(out)} already; there is nothing left to do")
    if resume and (out / CHECKPOINT).exists():
        open_run(out)
        rundir.Hold(out).release()
        return "resume"
    killed_early = resume and (out / CONFIG).exists()  # before its first checkpoint
    if killed_early:
        rundir.check_restart(out)
    rundir.check(out, force=force or killed_early)
    return "replace" if force or killed_early else "make"


class ResumableState:
    """Everything that determines how a run continues: weights, optimisers, random state, and the watch for trouble."""

    def __init__(self, model: nn.Module, learner: Learner, trouble: Trouble, random: RandomState, ranks: Ranks) -> None:
        self._model, self._learner, self._trouble, self._random = model, learner, trouble, random
        self._ranks = ranks

    def save(self, out: Path, progress: TrainingProgress) -> None:
        """Write the checkpoint of the run directory ``out``."""
        checkpoint.save(
            out,
            {
                **{name: getattr(progress, name) for name in _KEPT},
                "model": self._model.state_dict(),
                "learner": self._learner.state_dict(),
                "trouble": self._trouble.state_dict(),
                "random": self._random.now(),
                "layers": checkpoint.forward_facts(self._model),
                "devices": self._ranks.world,
            },
        )

    def take_up(self, out: Path, progress: TrainingProgress) -> TrainingProgress:
        """Restore the checkpoint of the run directory ``out``; return the progress that it holds.

        Every process takes up what the first one has read.

        Raises
        ------
        InputError
            If there is no checkpoint, or it does not fit the run.
        """
        saved = self._ranks.first(lambda: checkpoint.load(out))
        with self._ranks.agreement():
            restored = self._restore(saved, out, progress)
        before = saved.get("devices", 1)
        if before != self._ranks.world and self._ranks.rank == 0:
            warnings.warn(
                f"{out}: it goes on with devices={self._ranks.world} and was stopped with {before}; the order of the "
                "examples stays exact, sums are rounded in another order, and noise is drawn anew",
                stacklevel=2,
            )
        return restored

    def _restore(self, saved: dict[str, Any], out: Path, progress: TrainingProgress) -> TrainingProgress:
        try:
            step, *numbers = (saved[name] for name in _KEPT)
            if type(step) is not int or not 0 <= step <= progress.total:
                raise ValueError(f"step: expected a whole number from 0 to {progress.total}, got {step!r}")
            for name, number in zip(_KEPT[1:], numbers, strict=True):
                if not isinstance(number, float):
                    raise ValueError(f"{name}: expected a number, got {number!r}")
            self._model.load_state_dict(saved["model"])
            self._learner.load_state_dict(saved["learner"])
            self._check_optimizers()
            self._trouble.load_state_dict(saved["trouble"])
            checkpoint.restore_forward_facts(self._model, saved["layers"])
            if not isinstance(saved.get("devices", 1), int):
                raise ValueError(f"devices: expected a whole number, got {saved['devices']!r}")
            # If this machine has more devices than the last one, the states of the others are those of the seed.
            self._random.state = [*saved["random"], *self._random.state[len(saved["random"]) :]]
            with self._random.active():
                pass
            return dataclasses.replace(progress, step=step, **dict(zip(_KEPT[1:], numbers, strict=True)))
        except checkpoint.DAMAGE as error:
            raise InputError(
                f"{out / CHECKPOINT}: does not fit the run's settings ({first_line(error):.300})"
            ) from None

    def _check_optimizers(self) -> None:
        """Require that a step can use the optimisers' state of each parameter."""
        for name, optimizer in self._learner.optimizers.items():
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if value is not None and value.shape not in (parameter.shape, torch.Size()):
                        raise ValueError(f"{name}: {key} has shape {tuple(value.shape)}, not {tuple(parameter.shape)}")
                    if value is not None and value.dim() and value.stride() != parameter.stride():
                        # Fused optimisers take for granted that both lie in memory alike.
                        state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
