"""The processes that train one run together, by torch.distributed: who does which part, and how the parts are joined.

Each process holds the whole network and takes its share of every batch. A mean over the batch is the sum of the
processes' means, weighted by their shares; that holds for the gradients of W and of a learned B alike, because both
are affine in the examples' terms. So no rule needs a line of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import settings_with_role
from wtdiag.trainers.config.device import RandomState
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.rules import Rule

T = TypeVar("T")

_SAME_DRAWS, _OWN_DRAWS, _FEEDBACK = range(3)


class SharedError(InputError):
    """Unusable input that all processes of a run know of, so that one of them says it and all end."""


@dataclass(frozen=True)
class Share:
    """The part of a batch that one process takes.

    Attributes
    ----------
    part : slice
        Its examples among those of the batch.
    weight : float
        Their share in means over the batch: zero if the batch has too few examples for all processes.
    examples : int
        Number of examples of the whole batch.

    Examples
    --------
    >>> [share_of(5, rank, 3) for rank in (0, 1, 2)]  # doctest: +NORMALIZE_WHITESPACE
    [Share(part=slice(0, 2, None), weight=0.4, examples=5), Share(part=slice(2, 5, None), weight=0.6, examples=5),
     Share(part=slice(0, 2, None), weight=0.0, examples=5)]
    """

    part: slice
    weight: float
    examples: int


def share_of(examples: int, rank: int, world: int) -> Share:
    """Return the share of one of ``world`` processes in a batch, of at least two examples, as batch norm needs."""
    working = max(1, min(world, examples // 2))
    if rank >= working:  # it computes something, as it has to take part in the sums, and it counts for nothing
        return Share(slice(0, min(2, examples)), 0.0, examples)
    start, stop = (examples * number // working for number in (rank, rank + 1))
    return Share(slice(start, stop), (stop - start) / examples, examples)


class Ranks:
    """A process among those that train a run together; alone, it leaves everything as it is.

    Parameters
    ----------
    rank, world
        Number of this process, from 0, and number of all.
    seed
        Seed of the run, from which the random numbers of several processes are derived step by step. They have no
        state, so a run that is resumed on as many processes goes on with the same noise.

    Examples
    --------
    >>> ranks = Ranks()
    >>> ranks.share(64), ranks.first(lambda: "done")
    (Share(part=slice(0, 64, None), weight=1.0, examples=64), 'done')
    """

    def __init__(self, rank: int = 0, world: int = 1, *, seed: int = 0) -> None:
        self.rank, self.world, self._seed, self._step = rank, world, seed, 0
        self._weight = 1.0
        # Sums within the backward pass have a group of their own, so that they never change places with DDP's.
        self._within_pass: Any = dist.new_group() if world > 1 else None

    @classmethod
    def of(cls, settings: Settings) -> Ranks:
        """Return this process among the ``devices`` of the settings.

        Raises
        ------
        InputError
            If they are several, and not as many processes have joined.
        """
        if settings.devices == 1:
            return cls(seed=settings.seed)
        joined = dist.get_world_size() if dist.is_initialized() else 1
        if joined != settings.devices:
            raise InputError(
                f"devices: {settings.devices} need as many processes, and there is {joined}; "
                "start them by `wtdiag train --devices` or torchrun"
            )
        return cls(dist.get_rank(), joined, seed=settings.seed)

    @property
    def is_alone(self) -> bool:
        """Whether no other process trains the run."""
        return self.world == 1

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """Let input that is unusable for one process in the block be so for all: none waits for one that has ended.

        Raises
        ------
        SharedError
            On every process, if the block raises InputError on one.
        """
        problem = None
        try:
            yield
        except InputError as error:
            if self.is_alone or isinstance(error, SharedError):
                raise
            problem = str(error)
        if not self.is_alone:
            found: list[str | None] = [None] * self.world
            dist.all_gather_object(found, problem)
            for rank, each in enumerate(found):
                if each is not None:
                    raise SharedError(each if rank == 0 else f"process {rank} of {self.world}: {each}")

    def first(self, action: Callable[[], T]) -> T:
        """Return the result of an action that only the first process takes.

        Raises
        ------
        SharedError
            On every process, if it raises InputError.
        """
        result: list[Any] = [None]
        with self.agreement():
            if self.rank == 0:
                result = [action()]
        if not self.is_alone:
            dist.broadcast_object_list(result, device=torch.device("cpu"))
        return result[0]  # type: ignore[no-any-return]

    def require_same(self, runs: Mapping[Path, Settings]) -> None:
        """Require that all processes are to train the same runs, with settings that differ in location at most.

        Raises
        ------
        SharedError
            If one is not, with the first setting that differs.
        """
        if self.is_alone:
            return
        own = set(settings_with_role("location")) - {"devices"}
        plain = {str(path): dataclasses.asdict(settings) for path, settings in runs.items()}
        mine = {(path, name): value for path, given in plain.items() for name, value in given.items()}
        every: list[dict[tuple[str, str], Any]] = [{}] * self.world
        dist.all_gather_object(every, mine)
        for rank, its in enumerate(every):
            for path, name in (*every[0], *its):
                values = [given.get((path, name), "no such run") for given in (every[0], its)]
                if name not in own and values[0] != values[1]:
                    raise SharedError(
                        f"{name}: process 0 of {self.world} has {values[0]!r} for {path}, and process {rank} has "
                        f"{values[1]!r}; start all processes with the same options"
                    )

    def share(self, examples: int) -> Share:
        """Return this process's part of a batch."""
        return share_of(examples, self.rank, self.world)

    def synchronised(self, model: nn.Module, settings: Settings) -> nn.Module:
        """Return the network with its batch norms taken over the whole batch, if the settings ask for that.

        Raises
        ------
        InputError
            If PyTorch has none for the device.
        """
        if self.is_alone or not settings.sync_batch_norm:
            return model
        if (kind := next(model.parameters()).device.type) == "cpu":
            raise InputError(f"sync_batch_norm: PyTorch has it for GPUs only, and the run is on the {kind}")
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return,no-untyped-call]

    def wrap(self, model: nn.Module, settings: Settings) -> nn.Module:
        """Return the module to call in training, whose backward pass leaves the gradients of the whole batch.

        The module is PyTorch's DistributedDataParallel. Learned feedback weights are parameters with a gradient like
        others; fixed ones have none.
        """
        if not self.is_alone or settings.accumulate > 1:
            self._draw_feedback_alike(model)
        if self.is_alone:
            return model
        device = next(model.parameters()).device
        wrapped = DistributedDataParallel(
            model,
            device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
            # In a task step B takes no gradient, except where it shares that of W.
            find_unused_parameters=bool(settings.alternate) and "weight_grad" not in settings.rule_at(0, 0).shares,
        )
        wrapped.register_comm_hook(None, lambda _, bucket: self._sum_gradients(bucket))  # DDP reads annotations
        return wrapped

    def weigh(self, weight: float) -> None:
        """Set the factor of this process's gradients in the sum that the next backward pass makes."""
        self._weight = weight

    def _sum_gradients(self, bucket: Any) -> torch.futures.Future[Tensor]:
        work: Any = dist.all_reduce(bucket.buffer().mul_(self._weight), async_op=True)
        summed: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
        return summed

    def mean(self, weight: float, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the means over the batch of quantities whose means over this process's part are given."""
        if self.is_alone:
            return values
        joined = torch.stack([value.detach().double() for value in values]) * weight
        dist.all_reduce(joined)
        return joined.unbind()

    def mean_within_pass(self, value: Tensor) -> Tensor:
        """Return the mean over the batch of a quantity, inside of a backward pass."""
        if self.is_alone:
            return value
        joined = value * self._weight
        dist.all_reduce(joined, group=self._within_pass)
        return joined

    def begin(self, step: int) -> None:
        """Let this process draw random numbers of its own from here on, a function of seed, step and process."""
        self._step = step
        if not self.is_alone:
            torch.manual_seed(self._derived(_OWN_DRAWS, self.rank))

    def same_draws(self, device: torch.device) -> AbstractContextManager[None]:
        """Let all processes draw the same random numbers in the block, others for each step."""
        return nullcontext() if self.is_alone else self._drawing(device, _SAME_DRAWS)

    def _drawing(self, device: torch.device, *key: int) -> AbstractContextManager[None]:
        return RandomState(device, self._derived(*key)).active()

    def _derived(self, *key: int) -> int:
        (seed,) = np.random.SeedSequence((self._seed, self._step, *key)).generate_state(1, np.uint64)
        return int(seed) >> 1

    def _draw_feedback_alike(self, model: nn.Module) -> None:
        """Let a rule that draws its B in each forward pass draw one for a step, whoever computes a piece of it."""

        def refresh(layer: Any, number: int, weight: Tensor | None = None) -> None:
            with self._drawing(layer.feedback.device, _FEEDBACK, number):
                type(layer).refresh(layer, weight)

        for number, (_, layer) in enumerate(synapses(model)):
            if type(layer.rule).refresh is not Rule.refresh:
                layer.refresh = partial(refresh, layer, number)  # type: ignore[method-assign]

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values of these tensors."""
        for tensor in tensors if not self.is_alone else ():
            dist.broadcast(tensor, 0)

    def part_of(self, examples: int) -> range:
        """Return the examples that this process evaluates: each is one process's."""
        return range(examples * self.rank // self.world, examples * (self.rank + 1) // self.world)

    def joined(self, values: Tensor) -> Tensor:
        """Return the values of all processes, in their order, as one vector on the CPU."""
        if self.is_alone:
            return values
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, values.numpy())
        return torch.from_numpy(np.concatenate(parts))
