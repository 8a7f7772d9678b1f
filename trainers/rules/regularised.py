"""The base class of rules that are sums of primitives: inputs, reduction, and one gradient for all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from wtdiag.probes.errors import InputError
from wtdiag.trainers.rules.base import OF_NOISE, OF_NOISE_STD, OF_REDUCTION, RandomFeedback, choice, positive
from wtdiag.trainers.rules.curvature import Curvature, curvature
from wtdiag.trainers.rules.local import add_scaled
from wtdiag.trainers.rules.primitives import PRIMITIVES, gradient, loss, squares
from wtdiag.trainers.rules.projections import ACTIVATIONS, Options, Projections

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local

OF_INPUTS = "where x comes from: the layer's own activations, or fresh iid noise"
_OF_SIGNALS = ("amp", "null", "sparse")
"""The primitives that are products of signals, of which the others have none."""
_OF_PROJECTIONS = ("centre", "normalise", "bias", "activation_forward", "activation_backward")


@dataclass(frozen=True, kw_only=True)
class Regularised(RandomFeedback):
    """A rule whose B descends a layer-wise regulariser, a sum of primitives; subclasses name their coefficients.

    The options from ``centre`` on are those of the paper's code, which has more combinations. There the loss of amp is
    − E⟨W x, B x⟩; without them that is − E[xᵀ Bᵀ y]. See `trainers.rules.projections`. With them the step-size number
    is that of the mean H, without what differs from batch to batch. No resting point and no step-size number are
    computed where B's gradient is not affine in B, which is so with normalise = "all" and with activation_backward, or
    depends on more than the variance of the noise, which is so if noise meets bias or activation_forward.

    With update_forward, what is predicted of B is for a W that stands still. Both can run away together where amp
    exceeds what holds it back: decay and null, or sparse.
    """

    learned = True

    inputs: str = choice("activations", "activations", "noise", about=OF_INPUTS)
    noise: str = choice("normal", "normal", "uniform", about=OF_NOISE)
    noise_std: float = positive(1.0, about=OF_NOISE_STD)
    reduction: str = choice(
        "mean",
        "mean",
        "sum",
        about=OF_REDUCTION,
    )
    centre: str = choice(
        "none",
        "none",
        "batch",
        "examples",
        about="batch: W x, and the x of B x, are less their means over the batch, for each unit and position; "
        "examples: x, W x, B x and Bᵀ W x are less the mean of each example",
    )
    normalise: str = choice(
        "none",
        "none",
        "inputs",
        "all",
        about="inputs: each example's x is less its mean, and divided by its L2 norm; all: so are W x, B x and Bᵀ W x, "
        "so that null and sparse do nothing, and amp rewards the direction of B x alone",
    )
    bias: str = choice(
        "none", "none", "forward", "backward", "both", about="the layer's bias is added to W x, to B x, or to both"
    )
    activation_forward: str = choice("none", "none", *ACTIVATIONS, about="function of W x, after the bias")
    activation_backward: str = choice("none", "none", *ACTIVATIONS, about="function of B x, after the bias")
    update_forward: str = choice(
        "no",
        "no",
        "yes",
        about="yes: W descends the regulariser too, beside the task, with decay · W for its decay, and with ‖W x‖ in "
        "place of ‖B x‖ for its sparse",
    )

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
        given = [name for name in _OF_PROJECTIONS if getattr(self, name) != "none"]
        if given and not any(hasattr(self, name) for name in _OF_SIGNALS):
            value = getattr(self, given[0])
            raise InputError(f"{self.name}: {given[0]}: no term of this rule has a projection, got {value!r}")
        in_b = hasattr(self, "sparse") or self.activation_backward != "none" or self.update_forward == "yes"
        if self.bias in ("backward", "both") and not in_b:
            raise InputError(
                f"{self.name}: bias: added to B x it changes nothing without sparse, activation_backward or "
                f"update_forward, got {self.bias!r}"
            )

    @property
    def affine(self) -> bool:  # type: ignore[override]
        """Whether B's gradient is affine in B, and its mean a function of what is known of the inputs."""
        of_noise = self.inputs == "noise" and (self.bias, self.activation_forward) != ("none", "none")
        return self.normalise != "all" and self.activation_backward == "none" and not of_noise

    @property
    def coefficients(self) -> dict[str, float]:
        """The coefficient of each primitive in this rule."""
        return {name: getattr(self, name) for name in PRIMITIVES if hasattr(self, name)}

    @property
    def shares(self) -> frozenset[str]:  # type: ignore[override]
        """The quantities that the active primitives read; with noise as input the layer's output is never needed."""
        biased = {"bias"} if self._projects and self.bias != "none" else set()
        if self.inputs == "noise":
            return frozenset({"weight"} | biased)
        reads: frozenset[str] = frozenset().union(
            *(PRIMITIVES[name].reads for name, value in self.coefficients.items() if value)
        )
        if self.update_forward == "yes":
            reads |= {"weight"}
        if self._projects and (self.update_forward == "yes" or not self.plain):
            reads |= {"output"}
        if self._projects and self.options.input != "none":  # then W x is computed of other inputs
            reads = reads - {"output"} | {"weight"}
        return reads | biased

    @property
    def counts_examples(self) -> bool:  # type: ignore[override]
        """Whether a sum over positions is averaged over the examples, or means of examples are subtracted."""
        return self._projects and (self.reduction == "sum" or (self.centre, self.normalise) != ("none", "none"))

    @property
    def options(self) -> Options:
        """What is done to the projections."""
        of_examples = {"examples": "examples"}.get(self.centre, "norm" if self.normalise != "none" else "none")
        after = "norm" if self.normalise == "all" else self.centre
        return Options(
            input=of_examples,
            forward=after,
            backward="none" if after == "batch" else after,
            centred_backward=self.centre == "batch",
            biases=(self.bias in ("forward", "both"), self.bias in ("backward", "both")),
            activations=(self.activation_forward, self.activation_backward),
        )

    @property
    def plain(self) -> bool:
        """Whether the primitives take x and y as they are."""
        return all(getattr(self, name) == "none" for name in _OF_PROJECTIONS)

    @property
    def _projects(self) -> bool:
        return any(self.coefficients.get(name) for name in _OF_SIGNALS)

    @property
    def homogeneous(self) -> Self:
        """The rule without the terms that do not depend on B: its gradient at B is H B."""
        without: dict[str, Any] = {name: 0.0 for name in self.coefficients if PRIMITIVES[name].pulls}
        bias = {"backward": "none", "both": "forward"}.get(self.bias, self.bias)  # of B x it is such a term too
        return dataclasses.replace(self, bias=bias, **without)

    @property
    def curved(self) -> tuple[str, ...]:
        """Names of the active primitives whose curvature depends on the inputs."""
        named = ((name, PRIMITIVES[name]) for name, value in self.coefficients.items() if value)
        return tuple(name for name, primitive in named if not (primitive.pulls or primitive.matrix))

    def squares(self, s: Local) -> list[tuple[float, Tensor]]:
        """Return the terms of an example's curvature along B; see `trainers.rules.primitives.squares`."""
        return squares(s, self.coefficients, reduction=self.reduction)

    def feedback_grad(self, s: Local) -> Tensor:
        if self.plain:
            return gradient(self._seen(s), self.coefficients, reduction=self.reduction)
        projections = self._projections(s)
        return self._summed(s, s.feedback, s.weight, projections.products(*self._of_signals))

    def weight_grad(self, s: Local) -> Tensor:
        if self.update_forward == "no":
            return s.weight_grad
        task, s = s.weight_grad, s.detached()
        projections = self._projections(s)
        return task.to(s.weight.dtype) + self._summed(
            s, s.weight, s.feedback, projections.forward_products(*self._of_signals)
        )

    def feedback_loss(self, s: Local) -> Tensor:
        if self.plain:
            return loss(self._seen(s), self.coefficients, reduction=self.reduction)
        own = {name: value for name, value in self.coefficients.items() if PRIMITIVES[name].matrix}
        of_signals = self._projections(s).loss(*self._of_signals) / s.examples(self.reduction)
        return loss(s, own, reduction=self.reduction) + of_signals

    @property
    def _of_signals(self) -> tuple[float, float, float]:
        amp, null, sparse = (self.coefficients.get(name, 0.0) for name in _OF_SIGNALS)
        return amp, null, sparse

    def _projections(self, s: Local) -> Projections:
        return Projections(self._seen(s), self.options, s.bias)

    def _summed(self, s: Local, own: Tensor, other: Tensor, products: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return decay · own − self · other and the mean of Σ y xᵀ of the products, in B's shape and precision."""
        decay, pull = (self.coefficients.get(name, 0.0) / s.op.uses for name in ("decay", "self"))
        total = own * decay
        if pull:
            total = add_scaled(total, other, -pull, in_place=True)
        for x, y in products:
            total = add_scaled(total, s.outer(x, y), 1 / s.examples(self.reduction), in_place=True)
        return total

    def _seen(self, s: Local) -> Local:
        """Return the synapse that the primitives see: with noise for its input, or as it is."""
        return s.mirror(self.noise, self.noise_std) if self.inputs == "noise" else s

    def curvature(self, s: Local) -> Curvature | None:
        if not self.plain:  # its matrices are those of x and y as they are
            return None
        bending = {name: value for name, value in self.coefficients.items() if not PRIMITIVES[name].pulls}
        products = [name for name, value in bending.items() if value and not PRIMITIVES[name].matrix]
        if products and self.inputs == "noise":
            s = s.mirror(self.noise, self.noise_std)
        return curvature(s, bending, reduction=self.reduction)
