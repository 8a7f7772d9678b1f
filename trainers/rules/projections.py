"""The regulariser of Kunin et al.'s code with its options: projections of x by W and by B, and what is done to them.

The code takes f = n(φ(W x + b)), g = n'(φ'(B x' + b)) and the reconstruction r = n(Bᵀ φ(W x + b)), where n and n' may
centre or normalise, x' may be centred, φ and φ' are activation functions, and b is the layer's bias. Its terms are

    − amp · E⟨g, f⟩ + null · ½ E‖r‖² + sparse · ½ E(‖f‖² + ‖g‖²),

and with none of the options those of `trainers.rules.primitives`. The gradients are written out here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu": (lambda z: z.relu(), lambda a: (a > 0).to(a.dtype)),
    "tanh": (lambda z: z.tanh(), lambda a: 1 - a.square()),
    "sigmoid": (lambda z: z.sigmoid(), lambda a: a * (1 - a)),
}
"""Activation functions, each with its derivative as a function of its value."""


@dataclass(frozen=True)
class Options:
    """What is done to the projections.

    Attributes
    ----------
    input, forward, backward : {"none", "batch", "examples", "norm"}
        What is done to x, to f and r, and to g: nothing, less the mean over the batch, less the mean of each example,
        or that divided by its L2 norm.
    centred_backward : bool
        Whether x' is x less its mean over the batch.
    biases : tuple of bool
        Whether the bias is added to W x, and to B x'.
    activations : tuple of str
        Names of φ and φ', or "none".
    """

    input: str = "none"
    forward: str = "none"
    backward: str = "none"
    centred_backward: bool = False
    biases: tuple[bool, bool] = (False, False)
    activations: tuple[str, str] = ("none", "none")


@dataclass(frozen=True)
class Projections:
    """The terms of one synapse, and their gradients; ``bias`` is the layer's, which ``s`` need not hold."""

    s: Local
    options: Options
    bias: Tensor | None

    def loss(self, amp: float, null: float, sparse: float) -> Tensor:
        """Return the terms, summed over the batch, as a function of B."""
        if not (amp or null or sparse):  # then s need not hold what they read
            return self.s.x.new_zeros(())
        x, x_backward = self._inputs()
        active, active_backward = self._forward(x), self._backward(x_backward)
        f, g = self._changed(active, "forward"), self._changed(active_backward, "backward")
        r = self._changed(self.s.adjoint(active), "forward")
        return null * r.square().sum() / 2 + sparse * g.square().sum() / 2 - amp * (f * g).sum()

    def products(self, amp: float, null: float, sparse: float) -> list[tuple[Tensor, Tensor]]:
        """Return pairs (x, y) for which Σ y xᵀ is the gradient of the terms for B."""
        if not (amp or null or sparse):
            return []
        x, x_backward = self._inputs()
        active, found = self._forward(x), []
        if self.options.backward == "norm":
            sparse = 0.0  # because ‖g‖ is 1
        if amp or sparse:
            bent = self.options.backward == "norm" or self.options.activations[1] != "none"
            active_backward = self._backward(x_backward) if sparse or bent else active  # or of its shape
            towards = []
            if amp:
                towards.append(-amp * self._changed(active, "forward"))
            if sparse:
                towards.append(sparse * self._changed(active_backward, "backward"))
            gradient = self._pulled(sum(towards[1:], towards[0]), active_backward, "backward")
            found.append((x_backward, self._before_activation(gradient, active_backward, 1)))
        if null and self.options.forward != "norm":  # else ‖r‖ is 1
            found.append((null * self._changed(self.s.adjoint(active), "forward"), active))
        return found

    def forward_products(self, amp: float, null: float, sparse: float) -> list[tuple[Tensor, Tensor]]:
        """Return the same for W."""
        if not (amp or null or sparse):
            return []
        x, x_backward = self._inputs()
        active, towards = self._forward(x), []
        normalised = self.options.forward == "norm"  # then ‖f‖ and ‖r‖ are 1
        if amp:
            g = self._changed(self._backward(x_backward), "backward")
            towards.append(-amp * self._pulled(g, active, "forward"))
        if sparse and not normalised:
            towards.append(sparse * self._changed(active, "forward"))
        if null and not normalised:
            towards.append(null * self.s.apply(self._changed(self.s.adjoint(active), "forward")))
        return [(x, self._before_activation(sum(towards[1:], towards[0]), active, 0))] if towards else []

    def _inputs(self) -> tuple[Tensor, Tensor]:
        """Return x and x'."""
        x = self._changed(self.s.x, "input")
        return x, _changed(x, "batch", self._axis) if self.options.centred_backward else x

    def _forward(self, x: Tensor) -> Tensor:
        """Return φ(W x + b)."""
        s = self.s
        return self._activated(s.y if self.options.input == "none" else s.op.apply(x, s.weight.to(x.dtype)), 0)

    def _backward(self, x: Tensor) -> Tensor:
        """Return φ'(B x + b)."""
        return self._activated(self.s.apply(x), 1)

    def _activated(self, y: Tensor, side: int) -> Tensor:
        if self.options.biases[side] and self.bias is not None:
            y = self.s.op.without_bias(y, -self.bias)
        name = self.options.activations[side]
        return y if name == "none" else ACTIVATIONS[name][0](y)

    def _before_activation(self, gradient: Tensor, active: Tensor, side: int) -> Tensor:
        """Return the gradient by what goes into an activation function, of its value."""
        name = self.options.activations[side]
        return gradient if name == "none" else gradient * ACTIVATIONS[name][1](active)

    def _changed(self, x: Tensor, which: str) -> Tensor:
        return _changed(x, getattr(self.options, which), self._axis)

    def _pulled(self, gradient: Tensor, x: Tensor, which: str) -> Tensor:
        return _pulled(gradient, x, getattr(self.options, which), self._axis)

    @property
    def _axis(self) -> int:
        return self.s.batch_axis or 0  # a layer refuses inputs whose axis is not known if an option depends on it


def _changed(x: Tensor, how: str, axis: int) -> Tensor:
    if how == "none":
        return x
    if how == "batch":
        return x - x.mean(axis, keepdim=True)
    x = x - x.mean(_units(x, axis), keepdim=True)
    return x * _inverse_norm(x, axis) if how == "norm" else x


def _pulled(gradient: Tensor, x: Tensor, how: str, axis: int) -> Tensor:
    """Return the gradient by x of what has this gradient by the changed x."""
    if how != "norm":
        return _changed(gradient, how, axis)  # a projection, its own adjoint
    x = _changed(x, "examples", axis)
    inverse = _inverse_norm(x, axis)
    unit = x * inverse
    along = (gradient * unit).sum(_units(x, axis), keepdim=True)
    return _changed(gradient - along * unit, "examples", axis) * inverse


def _units(x: Tensor, axis: int) -> list[int]:
    """Return the axes of one example, if ``axis`` counts the examples."""
    return [other for other in range(x.dim()) if other != axis or x.dim() == 1]


def _inverse_norm(x: Tensor, axis: int) -> Tensor:
    """Return 1 over the L2 norm of each example, and zero for an example of one value."""
    square = x.square().sum(_units(x, axis), keepdim=True)
    return square.clamp_min(1e-30).rsqrt() * (square > 1e-30)
