"""The cost of a run, estimated by building its network and taking a few steps on noise."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from wtdiag.probes.errors import InputError, first_line
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import Data
from wtdiag.trainers.data.synthetic import SyntheticSplit
from wtdiag.trainers.loop.fit import Training

STEP_SECONDS = 0.5
"""A step is timed on the number of examples for which it takes about this long, or on its whole batch."""
_TIMED_SECONDS, _MOST_STEPS = 0.3, 20


@dataclass(frozen=True)
class Cost:
    """The cost of one run.

    Attributes
    ----------
    parameters : int
        Number of trained forward parameters.
    memory : int
        Size in bytes, at the whole batch size, of weights, gradients, the optimisers' state, and the tensors that a
        forward pass keeps for the backward pass. This is the peak, except for temporary memory of libraries and passes.
    step_seconds : float
        Time of one training step at the whole batch size, without loading the data.
    examples : int
        Number of examples on which the step was timed; for larger batches the time is taken to be proportional.
    steps : int
        Training steps of the run.
    snapshot_bytes : int
        Disk space of its planned snapshots.
    """

    parameters: int
    memory: int
    step_seconds: float
    examples: int
    steps: int
    snapshot_bytes: int


def measure(settings: Settings, dataset: Data) -> Cost:
    """Return the cost of a run on this machine; nothing is written, and the images of the data are not used.

    Raises
    ------
    InputError
        If the network cannot be built or a training step fails.

    Examples
    --------
    >>> from wtdiag.trainers.data import load
    >>> cost = measure(Settings(rule="fa", epochs=2), load("digits"))
    >>> cost.parameters, cost.steps
    (13322, 46)
    """
    try:
        with TemporaryDirectory() as folder, torch.random.fork_rng():
            training = Training(settings, Path(folder, "run"), dataset=dataset)
            memory = _first_step(training)
            examples, seconds = _timed(training)
    except InputError:
        raise
    except (RuntimeError, MemoryError) as error:  # torch raises them for shapes that do not fit, and for memory
        raise InputError(f"a training step fails ({first_line(error)})") from error
    return Cost(
        parameters=sum(parameter.numel() for parameter in training.learner.forward),
        memory=memory,
        step_seconds=seconds * settings.batch_size / examples,
        examples=examples,
        steps=training.total,
        snapshot_bytes=len(training.plan) * training.plan.snapshot_bytes,
    )


def _first_step(training: Training) -> int:
    """Take a step with two examples; return the memory that a step with the whole batch needs."""
    own = {tensor.untyped_storage().data_ptr() for tensor in training.model.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = training.stepper.take(0, *_noise(training, 2)).loss.item()
    if not math.isfinite(loss):
        raise InputError(f"loss: {loss} at the first step, on noise; expected a finite number")
    state = [*training.model.state_dict().values()]
    state += [parameter.grad for parameter in training.model.parameters() if parameter.grad is not None]
    for optimizer in training.learner.optimizers.values():
        values = (value for entry in optimizer.state.values() for value in entry.values())
        state += [value for value in values if isinstance(value, Tensor)]
    activations = sum(kept.values()) * training.settings.batch_size // 2
    return activations + int(sum({tensor.data_ptr(): tensor.nbytes for tensor in state}.values()))


def _timed(training: Training) -> tuple[int, float]:
    """Return the number of examples on which a step was timed, and its time in seconds."""
    examples = 2
    batch = _noise(training, examples)
    seconds = _clocked(training, 0, batch)
    # The number grows in strides, because a step on few examples is dominated by overhead.
    while examples < training.settings.batch_size and seconds < STEP_SECONDS / 2:
        examples = min(4 * examples, training.settings.batch_size)
        batch = _noise(training, examples)
        seconds = _clocked(training, 0, batch)
    if seconds > STEP_SECONDS:
        return examples, seconds
    times: list[float] = []
    while sum(times) < _TIMED_SECONDS and len(times) < _MOST_STEPS:
        # These are steps from the middle of the run, after a delay at the start, with alternating steps in proportion.
        times.append(_clocked(training, training.total // 2 + len(times), batch))
    return examples, sum(times) / len(times)


def _clocked(training: Training, step: int, batch: tuple[Tensor, Tensor]) -> float:
    began = time.perf_counter()
    training.stepper.take(step, *batch).forward_norm.item()  # once it is read, the device has done its work
    return time.perf_counter() - began


def _noise(training: Training, examples: int) -> tuple[Tensor, Tensor]:
    data = training.dataset
    x, y = SyntheticSplit.of(examples, data.shape, data.classes).batch(torch.arange(examples))
    return training.stepper.place(x, y)
