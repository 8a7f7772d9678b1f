"""A layer's operation, and the law by which its feedback learns while W stands still, as functions of NumPy arrays.

Through them, probes of stability and of fixed points examine a network without depending on PyTorch or on any rule.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wtdiag.trainers.config.device import RandomState
from wtdiag.trainers.layers.factored_feedback import widened
from wtdiag.trainers.layers.operations import Convolution, Operation
from wtdiag.trainers.observe.channels import Channel, White, channel, strongest_group, white
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules.curvature import Curvature
from wtdiag.trainers.rules.local import Local, noise_like

Array = NDArray[Any]
_S = TypeVar("_S", bound=Local)

_AT_OUTPUT = 2**32
_DRAWING = threading.Lock()  # all threads share the global random state


@dataclass(frozen=True)
class LayerOperator:
    """The linear operation of a layer at its real size, for any matrix W of the weights' shape.

    Examples
    --------
    >>> from wtdiag.trainers.layers.operations import Dense
    >>> operator = LayerOperator(Dense(), (2,), torch.device("cpu"))
    >>> operator.apply(np.array([[3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
    array([[3.], [4.]])
    >>> operator.adjoint(np.array([[3.0, 4.0]]), np.array([[1.0]]))
    array([[3., 4.]])
    """

    op: Operation
    shape: tuple[int, ...]
    """Shape of one example's input."""
    device: torch.device

    @torch.no_grad()
    def apply(self, weight: Array, x: Array) -> Array:
        """Return W x for inputs (batch, ``*shape``)."""
        w, x_ = self._tensors(weight, x)
        return _array(self.op.apply(x_, w))

    @torch.no_grad()
    def adjoint(self, weight: Array, y: Array) -> Array:
        """Return Wᵀ y, (batch, ``*shape``)."""
        w, y_ = self._tensors(weight, y)
        return _array(self.op.adjoint(y_, w, y_.new_empty(len(y), *self.shape)))

    def _tensors(self, *arrays: Array) -> list[Tensor]:
        tensors = [_tensor(array).to(self.device) for array in arrays]
        dtype = torch.promote_types(*(tensor.dtype for tensor in tensors))
        return [tensor.to(dtype) for tensor in tensors]


@dataclass(frozen=True, eq=False)
class Use:
    """One use of a layer in a forward pass: everything except B on which the gradient of its feedback depends.

    W stands still, so its total gradient is zero: if a rule lets B share the task's gradient, that gradient just
    balances the rule's own term for W.
    """

    rule: Rule
    op: Operation
    x: Tensor
    weight: Tensor
    positions: int
    examples_known: bool = True
    """Whether the first axis of x is known to count the examples."""
    left: Tensor | None = None
    """The left factor P of a rule whose B is P R. It stands still too, and B takes P Pᵀ times an update of W."""
    bias: Tensor | None = None
    """The layer's bias, for rules that read it."""

    def to(self, dtype: torch.dtype) -> Use:
        """Return the same use in another precision."""
        if dtype == self.x.dtype:
            return self
        return self._double if dtype == torch.float64 else self._cast(dtype)

    def gradient(self, feedback: Tensor) -> Tensor:
        """Return the rule's gradient at B: the mean over the batch, or over all noise if the rule learns from noise."""
        total = torch.zeros_like(feedback)
        designs = math.prod(_periods(self.op, self.x, self.weight))
        for first in range(0, designs, len(self.x)):
            s = self._local(_Expected, self.x, feedback)
            s.first = first
            gradient = self.rule.feedback_grad(s)
            if not s.drawn:
                return gradient
            total.add_(gradient, alpha=s.drawn / designs)
        return total

    def curvature(self, feedback: Tensor) -> Curvature | None:
        """Return H of the rule's gradient, the same mean, for a B of this shape and dtype; None if it is not known."""
        if _definer(self.rule, "curvature") is not _definer(self.rule, "feedback_grad"):
            return None
        total = Curvature()
        designs = math.prod(_periods(self.op, self.x, self.weight))
        for first in range(0, designs, len(self.x)):
            s = self._local(_Expected, self.x, feedback)
            s.first = first
            part = self.rule.curvature(s)
            if part is None or not s.drawn:
                return part
            total += part * (s.drawn / designs)
        return total

    def deviation(self, feedback: Tensor, draw: int, seed: int) -> Tensor:
        """Return a sample of (gradient of a batch of this size − its mean) at B.

        It is the difference between the gradients of two halves of the batch, each with its own noise, scaled to the
        variance of the whole batch. It is NaN for a batch of one, and if it is not known which axis counts the
        examples.
        """
        half = len(self.x) // 2
        if not half or not self.examples_known:
            return torch.full_like(feedback, math.nan)
        drawn = torch.Generator().manual_seed(draw)
        order = torch.randperm(len(self.x), generator=drawn, device="cpu").to(self.x.device)
        gradients = []
        for part in (0, 1):
            s = self._local(_Sampled, self.x[order[part * half : (part + 1) * half]], feedback)
            s.seed = 2 * seed + part
            gradients.append(self.rule.feedback_grad(s))
        return (gradients[0] - gradients[1]) * math.sqrt(half / len(self.x) / 2)

    def _local(self, kind: type[_S], x: Tensor, feedback: Tensor) -> _S:
        s = kind(self.op, x, feedback, self.positions, weight=self.weight, bias=self.bias)
        if "output" in self.rule.shares:
            s.y = self.output if x is self.x else self.op.apply(x, self.weight)
        if "weight_grad" in self.rule.shares:
            s.weight_grad = self.shared(self.rule.weight_grad_at_rest(s))
        return s

    def shared(self, update: Tensor) -> Tensor:
        """Return how B moves if it shares this update of W."""
        return update if self.left is None else widened(self.op, self.left, update)

    @property
    def is_white(self) -> bool:
        """Whether the rule learns from noise in place of activations."""
        return getattr(self.rule, "inputs", "") == "noise"

    @cached_property
    def output(self) -> Tensor:
        """W x."""
        return self.op.apply(self.x, self.weight)

    @cached_property
    def _double(self) -> Use:
        return self._cast(torch.float64)

    def _cast(self, dtype: torch.dtype) -> Use:
        left, bias = (None if part is None else part.to(dtype) for part in (self.left, self.bias))
        return dataclasses.replace(self, x=self.x.to(dtype), weight=self.weight.to(dtype), left=left, bias=bias)


@dataclass
class _Expected(Local):
    """A synapse whose mirror phase receives, part by part, inputs with exactly the second moments of the noise."""

    first: int = 0
    drawn: int = 0

    def mirror(self, noise: str, std: float) -> Local:
        shape, periods = self.x.shape[1:], _periods(self.op, self.x, self.weight)
        x = std * _impulses(shape, periods, self.first, len(self.x)).to(self.x)
        self.drawn = len(x)
        return Local(self.op, x, self.feedback, self.positions, self.op.apply(x, self.weight), self.weight)

    def driven_back(self, noise: str, std: float, like: Tensor | None = None) -> Local:
        """Return the synapse driven by all impulses at once, in whatever part the mirror phase is."""
        like = (self._like_output() if like is None else like)[:1]
        periods = _output_periods(self.op, like, self.weight)
        y = std * _impulses(like.shape[1:], periods, 0, math.prod(periods)).to(like)
        x = self.x.new_empty(len(y), *self.x.shape[1:])
        return Local(self.op, x, self.feedback, self.positions, y, self.weight)

    def riding(self, noise: str, std: float) -> Local:
        """Return the synapse in the mirror phase: the activity on which the noise rides has no share in the mean."""
        return self.mirror(noise, std)


@dataclass
class _Sampled(Local):
    """A synapse whose mirror phase receives the noise of a seed."""

    seed: int = 0

    def mirror(self, noise: str, std: float) -> Local:
        with _DRAWING, RandomState(self.x.device, self.seed).active():
            return super().mirror(noise, std)

    def driven_back(self, noise: str, std: float, like: Tensor | None = None) -> Local:
        # The noise at the output is drawn apart from that at the input, whose seeds are even and odd numbers from 0 on.
        with _DRAWING, RandomState(self.x.device, self.seed + _AT_OUTPUT).active():
            return super().driven_back(noise, std, like)

    def riding(self, noise: str, std: float) -> Local:
        with _DRAWING, RandomState(self.x.device, self.seed).active():
            self.noise = noise_like(self.x, noise, std)
        self.y = self.op.apply(self.x + self.noise, self.weight)
        return super().riding(noise, std)


def _definer(rule: Rule, method: str) -> type:
    """Return the class that defines a method of the rule."""
    return next(cls for cls in type(rule).__mro__ if method in vars(cls))


def _periods(op: Operation, x: Tensor, weight: Tensor) -> list[int]:
    """Return, for each axis of one example, the distance from which two entries do not feed the same output."""
    shape = list(x.shape[1:])
    if not isinstance(op, Convolution):
        return [*(1 for _ in shape[:-1]), shape[-1]] if op.structured else shape
    reach = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], op.dilation, strict=True)]
    return [shape[0] // op.groups, *map(min, reach, shape[1:])]


def _output_periods(op: Operation, y: Tensor, weight: Tensor) -> list[int]:
    """Return, for each axis of one example's output, the distance from which no input is fed by two entries."""
    shape = list(y.shape[1:])
    if not isinstance(op, Convolution):
        return [*(1 for _ in shape[:-1]), shape[-1]] if op.structured else shape
    reach = [(size - 1) * step + 1 for size, step in zip(weight.shape[2:], op.dilation, strict=True)]
    if not op.transposed:
        reach = [-(-length // step) for length, step in zip(reach, op.stride, strict=True)]
    return [shape[0] // op.groups, *map(min, reach, shape[1:])]


def _impulses(example: Sequence[int], periods: Sequence[int], first: int, most: int) -> Tensor:
    """Return a part of a batch that represents all noise of variance 1 in signals of one shape.

    Noise affects learning through its second moments. In each example some entries are ±√n and the others zero; those
    that are not zero lie so far apart that they do not meet in a product of input and output, and over all n examples
    each entry has its turn once. So for entries that do meet, E[x xᵀ] is exactly that of white noise, whereas as many
    random examples would leave a relative error of √(fan-in / examples). For entries that meet in longer products, the
    random signs have the same effect on average.

    Parameters
    ----------
    example
        Shape of one example.
    periods
        For each axis, the distance from which entries do not meet.
    first, most
        Number of the part's first example, and its greatest length.
    """
    count = math.prod(periods)
    turns = torch.arange(first, min(first + most, count), device="cpu")
    shape = (len(turns), *example)
    drawn = torch.Generator().manual_seed(first)
    signs = torch.randint(0, 2, shape, generator=drawn, device="cpu").mul_(2).sub_(1)
    part = signs.to(torch.float64).mul_(math.sqrt(count))
    for axis, (turn, period) in enumerate(zip(torch.unravel_index(turns, periods), periods, strict=True), start=1):
        chosen = torch.arange(shape[axis], device="cpu") % period == turn[:, None]
        part *= chosen.view(len(turns), *(shape[axis] if i == axis else 1 for i in range(1, len(shape))))
    return part


@dataclass(frozen=True)
class Law:
    """The law by which the feedback of a layer learns while the forward weights W stand still.

    It is the rule's own gradient, as the rule computes it. For every rule of the registry it is affine in B:
    ∂B = H B − T. Layers that share their weights share B and its gradient too.

    Attributes
    ----------
    uses : tuple of Use
        All uses of B in one forward pass.
    examples : int
        Number of examples in that pass.
    batch_size : int or None
        Number of examples in a training step; None stands for that of the pass.
    epoch : int or None
        Number of steps in an epoch, in which each example is drawn once; None if it is not known.
    lr : float
        Learning rate of B in the step that follows; NaN if it is not known.
    optimizer : str
        Optimiser of B, by its name in `probes.records.optimizers`.
    momentum, nesterov
        Momentum of SGD, and whether it has Nesterov's form.
    interval : int
        Steps from one update of B to the next.
    weight_decay : float
        The optimiser adds this times B to the gradient; `gradient` does not contain it.
    update_noise : float
        Standard deviation of the noise that an update adds to an entry of B, relative to W.

    Examples
    --------
    Symmetric alignment descends ∂B = decay · B − self · W:

    >>> from wtdiag.trainers.layers.operations import Dense
    >>> from wtdiag.trainers.rules import rule
    >>> use = Use(rule("sa", decay=0.5, self=1.0), Dense(), torch.zeros(7, 2), torch.ones(1, 2), 1)
    >>> law = Law((use,), examples=7)
    >>> law.gradient(np.zeros((1, 2))), law.gradient(np.array([[2.0, 4.0]]))
    (array([[-1., -1.]]), array([[0., 1.]]))
    """

    uses: tuple[Use, ...]
    examples: int
    batch_size: int | None = None
    epoch: int | None = None
    lr: float = math.nan
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    interval: int = 1
    weight_decay: float = 0.0
    update_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.uses[0].left is None:
            return
        # An optimiser moves the right factor. Only steps of SGD, without noise, are such steps of B as well.
        if self.optimizer != "sgd":
            object.__setattr__(self, "lr", math.nan)
        if self.update_noise:
            object.__setattr__(self, "update_noise", math.nan)

    @torch.no_grad()
    def gradient(self, feedback: Array) -> Array:
        """Return ∂B at B, in B's shape: the mean over the batch and, for a rule that learns from noise, over the noise.

        It is computed in float64 if ``feedback`` is float64, else in the network's precision. Of an affine gradient
        H B − T, T is computed once, and H too if that is cheaper (see `trainers.rules.curvature`).
        """
        uses, b = self._ready(feedback)
        if (curvature := self._curvature(uses, b)) is None:
            return _array(self._direct(uses, b))
        if b.dtype not in self._at_zero:
            self._at_zero[b.dtype] = self._direct(uses, torch.zeros_like(b))
        return _array(curvature(b) + self._at_zero[b.dtype] if b.any() else self._at_zero[b.dtype].clone())

    def _direct(self, uses: Sequence[Use], b: Tensor) -> Tensor:
        """Return ∂B at B as the rule itself computes it."""
        total = sum((use.gradient(b) for use in uses), torch.zeros_like(b))
        if self.weight_decay and "weight_grad" in uses[0].rule.shares:
            # The task's gradient balances the optimiser's decay too.
            total = total - self.weight_decay * uses[0].shared(uses[0].weight)
        return total

    def _curvature(self, uses: Sequence[Use], b: Tensor) -> Curvature | None:
        """Return H summed over all uses; None if that of one is not known."""
        if b.dtype not in self._curvatures:
            parts = [use.curvature(b) for use in uses]
            known = [part for part in parts if part is not None]
            self._curvatures[b.dtype] = sum(known, Curvature()) if len(known) == len(parts) else None
        return self._curvatures[b.dtype]

    @cached_property
    def _curvatures(self) -> dict[torch.dtype, Curvature | None]:
        return {}

    @cached_property
    def _at_zero(self) -> dict[torch.dtype, Tensor]:
        return {}

    @torch.no_grad()
    def noise(self, feedback: Array, draws: int) -> Array:
        """Return samples of (∂B of a training batch − its mean) at B, (draw, *shape of B); they are always the same."""
        uses, b = self._ready(feedback)
        scale = math.sqrt(self.examples / self.batch) * self._drawn
        samples = torch.zeros(draws, *b.shape, dtype=b.dtype, device=b.device)
        for draw, sample in enumerate(samples):
            for index, use in enumerate(uses):
                sample += scale * use.deviation(b, draw, seed=draw * len(uses) + index)
        return _array(samples)

    @property
    def batch(self) -> int:
        """Number of examples in a training step."""
        return self.batch_size or self.examples

    @property
    def _drawn(self) -> float:
        """Deviation of a batch's mean, relative to that of a batch that is drawn with replacement."""
        return 1.0 if self.uses[0].is_white or not self.epoch else math.sqrt(1 - 1 / self.epoch)

    def channel(self) -> Channel | None:
        """Return the curvature of one channel of B, from which that of batches follows.

        None if H is the same for all batches, if it is not known which axis counts the examples, and for a rule that
        has no channels, as `trainers.observe.channels.channel` says, or learns from noise.
        """
        usable = all(use.examples_known and len(use.x) == self.examples for use in self.uses)
        if not usable or self.uses[0].is_white or self._drawn == 0:
            return None
        first = self.uses[0]
        group = strongest_group(first.rule, first.op, first.x, first.output)
        parts = [channel(use.rule, use.op, use.x, use.output, use.weight, use.positions, group) for use in self.uses]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        dtype = known[0].local.x.dtype
        whole = self._curvature([use.to(dtype) for use in self.uses], first.weight.to(dtype))
        return Channel(tuple(known), whole and whole.of_group(group), self.weight_decay, self._drawn)

    def white(self) -> White | None:
        """Return the size of the noise from which the rule learns.

        None if it learns from activations, if H does not depend on the noise, or depends on it in two ways.
        """
        parts = [white(use.rule, use.op, use.x, use.output, use.weight, use.positions) for use in self.uses]
        known = [part for part in parts if part is not None]
        samples = self.batch * sum(part.samples for part in known)
        return known[0]._replace(samples=samples) if len(known) == len(parts) else None

    def _ready(self, feedback: Array) -> tuple[list[Use], Tensor]:
        """Return the uses and B on one device and in one precision."""
        b, x = _tensor(feedback), self.uses[0].x
        b = b.to(x.device, torch.promote_types(b.dtype, x.dtype))
        return [use.to(b.dtype) for use in self.uses], b


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # PyTorch warns about read-only arrays


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array
