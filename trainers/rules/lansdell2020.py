"""Node perturbation of feedback: B learns to predict what noise at a layer does to the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.trainers.rules.base import Recipe, register
from wtdiag.trainers.rules.perturbed import Perturbed

if TYPE_CHECKING:
    from torch import Tensor

    from wtdiag.trainers.rules.local import Local


@register
@dataclass(frozen=True, kw_only=True)
class NodePerturbation(Perturbed):
    """Node perturbation of feedback: Bᵀ e learns to be what noise shows the error at the layer's input to be.

    A second forward pass has noise ξ of deviation c = ``noise_std`` at the input of every layer at once, and the same
    dropout. The loss L of each example changes by L̃ − L, and λ̂ = ξ (L̃ − L) / c² estimates its error at the input. B
    descends ½ E‖Bᵀ e − λ̂‖², with e the error at the layer's output as the rule brings it. All that a layer needs
    besides its own signals is the change of the loss, one number for each example. It is taken at the network's output,
    to first order, as ⟨∂L/∂output, change of the output⟩, so that any loop and any loss can be used. A step costs up to
    twice that of backprop: a forward pass, Bᵀ e and one product more. B follows the errors above, so no resting point
    and no step-size number are computed for it.
    """

    name = "np"
    title = "Node perturbation of feedback"
    equation = "∂B = E[e (Bᵀ e − λ̂)ᵀ], λ̂ = ξ (L̃ − L) / c², e = ∂L/∂y, ξ noise in a second forward pass"
    reference = "Lansdell et al. 2020, arXiv:1906.00889"
    shares = frozenset({"error"})
    recipe = Recipe(optimizer="adam", lr=0.02)
    flops = "2"
    passes_twice = True
    affine = False  # nor does the error at its output

    def feedback_grad(self, s: Local) -> Tensor:
        return s.outer(self._residual(s), s.error) * s.examples("sum")

    def feedback_loss(self, s: Local) -> Tensor | None:
        return None if s.noise is None else self._residual(s).square().sum() * s.examples("sum") / 2

    def _residual(self, s: Local) -> Tensor:
        """Return Bᵀ e − λ̂, of a mean over the examples as e is."""
        change = s.change
        if s.x.dim() > 1:  # one number for each example
            assert s.batch_axis is not None, "the layer refuses such inputs"
            change = change.view([-1 if axis == s.batch_axis else 1 for axis in range(s.x.dim())])
        return s.adjoint(s.error) - s.noise * change / self.noise_std**2
