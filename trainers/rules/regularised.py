"""The base class of rules that are sums of primitives: inputs, reduction, and one gradient for all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from wtdiag.probes.errors import InputError
from wtdiag.trainers.rules.base import RandomFeedback, choice, positive
from wtdiag.trainers.rules.curvature import Curvature, curvature
from wtdiag.trainers.rules.local import NormalisedExamples
from wtdiag.trainers.rules.primitives import (
    PRIMITIVES,
    forward_gradient,
    gradient,
    loss,
    normalised_gradient,
    squares,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local


@dataclass(frozen=True, kw_only=True)
class Regularised(RandomFeedback):
    """A rule whose B descends a layer-wise regulariser, a sum of primitives; subclasses name their coefficients.

    Parameters
    ----------
    inputs
        "activations": x and y are the layer's own; "noise": x is fresh iid noise, and y = W x.
    noise, noise_std
        Distribution of that noise, "normal" or "uniform" (both of zero mean), and its standard deviation.
    reduction
        "mean" or "sum" over the positions of a convolution or a sequence; with the sum, terms grow with their number.
    centre
        "batch": x and y are less their means over the batch, for each unit and position. "examples": x, W x, B x and
        Bᵀ y are less the mean of each example over all its units and positions. Both are options of the paper's code,
        where more combinations can be switched; they hold for activations only. The step-size number is then that of
        the mean H, without what differs from batch to batch.
    normalise
        "inputs": each example's x is less its mean over all units and positions, and divided by its L2 norm. "all": so
        are W x, B x and Bᵀ y too. Then ‖B x‖ and ‖Bᵀ y‖ are 1, so that null and sparse do nothing, and amp rewards
        only the direction of Bᵀ y. ∂B is no longer linear in B, and no resting point and no step-size number are
        computed.
    update_forward
        "yes": W descends the regulariser too, beside the task, with decay · W for its decay. What is predicted of B is
        for a W that stands still. Both can run away together where no decay of W holds amp back: under "aa", which
        has none, and under "wm-reg" where amp Σ exceeds it.
    scale
        Standard deviation of the initial B in units of the layer's He deviation.
    """

    learned = True

    inputs: str = choice("activations", "activations", "noise")
    noise: str = choice("normal", "normal", "uniform")
    noise_std: float = positive(1.0)
    reduction: str = choice("mean", "mean", "sum")
    centre: str = choice("none", "none", "batch", "examples")
    normalise: str = choice("none", "none", "inputs", "all")
    update_forward: str = choice("no", "no", "yes")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.centre != "none" and self.inputs == "noise":
            raise InputError(f"{self.name}: centre: noise has no mean to subtract, got centre={self.centre!r}")
        if self.inputs == "noise" and (self.normalise != "none" or self.update_forward == "yes"):
            name = "normalise" if self.normalise != "none" else "update_forward"
            raise InputError(
                f"{self.name}: {name}: is for activations, got {getattr(self, name)!r} with inputs='noise'"
            )
        if self.normalise != "none" and self.centre != "none":
            raise InputError(f"{self.name}: normalise: centres each example too; leave out centre={self.centre!r}")

    @property
    def affine(self) -> bool:  # type: ignore[override]
        """Whether B's gradient is affine in B."""
        return self.normalise != "all"

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficient of each primitive in this rule."""
        return {name: getattr(self, name) for name in PRIMITIVES if hasattr(self, name)}

    @property
    def shares(self) -> frozenset[str]:  # type: ignore[override]
        """The quantities that the active primitives read; with noise as input the layer's output is never needed."""
        if self.inputs == "noise":
            return frozenset({"weight"})
        reads = frozenset().union(*(PRIMITIVES[name].reads for name, value in self.coefficients.items() if value))
        anew = self.centre == "examples" or self.normalise != "none"  # then W x is computed of other inputs
        if self.update_forward == "yes":
            reads |= {"weight", "output"} if self.coefficients.get("null") else {"weight"}
        return reads - {"output"} | {"weight"} if anew else reads

    @property
    def counts_examples(self) -> bool:  # type: ignore[override]
        """Whether a sum over positions is averaged over the examples, or means of examples are subtracted."""
        products = [name for name, value in self.coefficients.items() if value and not PRIMITIVES[name].matrix]
        return (self.reduction == "sum" or self._changes_signals) and bool(products)

    @property
    def _changes_signals(self) -> bool:
        return self.centre != "none" or self.normalise != "none"

    @property
    def homogeneous(self) -> Self:
        """The rule without the terms that do not depend on B: its gradient at B is H B."""
        without: dict[str, Any] = {name: 0.0 for name in self.coefficients if PRIMITIVES[name].pulls}
        return dataclasses.replace(self, **without)

    @property
    def curved(self) -> tuple[str, ...]:
        """Names of the active primitives whose curvature depends on the inputs."""
        named = ((name, PRIMITIVES[name]) for name, value in self.coefficients.items() if value)
        return tuple(name for name, primitive in named if not (primitive.pulls or primitive.matrix))

    def squares(self, s: Local) -> list[tuple[float, Tensor]]:
        """Return the terms of an example's curvature along B; see `trainers.rules.primitives.squares`."""
        return squares(s, self.coefficients, reduction=self.reduction)

    def feedback_grad(self, s: Local) -> Tensor:
        s = self._seen(s)
        if isinstance(s, NormalisedExamples):
            return normalised_gradient(s, self.coefficients, reduction=self.reduction)
        return gradient(s, self.coefficients, reduction=self.reduction)

    def weight_grad(self, s: Local) -> Tensor:
        if self.update_forward == "no":
            return s.weight_grad
        task, s = s.weight_grad, self._seen(s.detached())
        if isinstance(s, NormalisedExamples):
            own = normalised_gradient(s, self.coefficients, reduction=self.reduction, forward=True)
        else:
            own = forward_gradient(s, self.coefficients, reduction=self.reduction)
        return task.to(own.dtype) + own

    def feedback_loss(self, s: Local) -> Tensor:
        return loss(self._seen(s), self.coefficients, reduction=self.reduction)

    def _seen(self, s: Local) -> Local:
        """Return the synapse with the inputs and outputs that the primitives take."""
        if self.inputs == "noise":
            return s.mirror(self.noise, self.noise_std)
        if not (self._changes_signals and self.counts_examples):
            return s
        if self.normalise != "none":
            return s.normalised_inputs() if self.normalise == "inputs" else s.normalised_examples()
        return s.centred_over_batch() if self.centre == "batch" else s.centred_examples()

    def curvature(self, s: Local) -> Curvature | None:
        if self._changes_signals:  # its matrices are those of x and y as they are
            return None
        bending = {name: value for name, value in self.coefficients.items() if not PRIMITIVES[name].pulls}
        products = [name for name, value in bending.items() if value and not PRIMITIVES[name].matrix]
        if products and self.inputs == "noise":
            s = s.mirror(self.noise, self.noise_std)
        return curvature(s, bending, reduction=self.reduction)
