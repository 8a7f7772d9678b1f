"""The metrics of training steps, which stay on the device until several steps are read together."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop.learner import Learner

_NUMBERS = ("loss", "accuracy", "forward_norm", "feedback_norm", "feedback_scale")


class StepResult(NamedTuple):
    """The result of a step, in tensors on the device.

    Attributes
    ----------
    loss, accuracy : Tensor
        Loss and accuracy on the batch, before the step.
    weight_norms, feedback_norms : tuple of Tensor
        Norm of the W of each converted layer, and of each learned B or factor of B, after the step.
    feedback_scale : Tensor or None
        The smallest factor on the gradients of B; None without a guard.
    """

    loss: Tensor
    accuracy: Tensor
    weight_norms: tuple[Tensor, ...]
    feedback_norms: tuple[Tensor, ...]
    feedback_scale: Tensor | None = None

    @property
    def norms(self) -> tuple[Tensor, ...]:
        """Norms of all W, and then of all learned B."""
        return self.weight_norms + self.feedback_norms

    @property
    def forward_norm(self) -> Tensor:
        """Norm of all W."""
        return _total(self.weight_norms)

    @property
    def feedback_norm(self) -> Tensor | None:
        """Norm of all learned B, or of their learned factors; None if no feedback is learned."""
        return _total(self.feedback_norms) if self.feedback_norms else None


class StepMetrics(NamedTuple):
    """The metrics of a step, as numbers.

    Attributes
    ----------
    step : int
        The step that the weights reached by it.
    loss, accuracy, forward_norm, feedback_norm, feedback_scale : float or None
        As in `StepResult`; None for what was not measured.
    non_finite : str
        The value that is not finite, "loss" or the name of a norm; "" if all are finite.
    """

    step: int
    loss: float
    accuracy: float
    forward_norm: float
    feedback_norm: float | None
    feedback_scale: float | None
    non_finite: str


class UnreadMetrics:
    """The metrics of the steps since the last reading; only `read` waits for the device.

    Parameters
    ----------
    model
        The converted network.
    learner
        The optimisers of its weights.
    """

    def __init__(self, model: nn.Module, learner: Learner) -> None:
        weights = {id(weight): place for place, weight in enumerate(learner.weights)}
        feedback = {id(learned): place for place, learned in enumerate(learner.feedback)}
        # The name of each layer, and the places of its W and B among the norms.
        self._layers = [
            (name, weights[id(s.weight)], [feedback[id(p)] for p in s.parameters_of("feedback") if id(p) in feedback])
            for name, s in synapses(model)
        ]
        self._results: list[tuple[int, StepResult]] = []

    def add(self, step: int, result: StepResult) -> None:
        """Hold the result of the step from ``step - 1`` to ``step``."""
        self._results.append((step, result))

    def read(self) -> list[StepMetrics]:
        """Return the metrics of the steps that were added since the last reading, in their order."""
        results, self._results = self._results, []
        if not results:
            return []
        names = [name for name in _NUMBERS if getattr(results[0][1], name) is not None]
        # In one tensor, all become float64, because the accuracy is; it holds every other dtype without loss.
        numbers_of = [[*(getattr(r, name) for name in names), *r.norms] for _, r in results]
        rows = torch.hstack([number for row in numbers_of for number in row]).view(len(results), -1)
        metrics = []
        for (step, result), row in zip(results, rows.tolist(), strict=True):
            numbers = {**dict.fromkeys(_NUMBERS), **dict(zip(names, row, strict=False))}
            of_layers = row[len(names) :]
            weights, feedback = of_layers[: len(result.weight_norms)], of_layers[len(result.weight_norms) :]
            if not math.isfinite(numbers["loss"]):
                broken = "loss"
            elif math.isfinite(numbers["forward_norm"] + (numbers["feedback_norm"] or 0.0)):
                broken = ""
            else:
                broken = self._first_non_finite(weights, feedback)
            metrics.append(StepMetrics(step, **numbers, non_finite=broken))
        return metrics

    def _first_non_finite(self, weights: list[float], feedback: list[float]) -> str:
        """Return where the numbers that are not finite began: those of B spread down to the W of the layers below."""
        broken_weights = [name for name, place, _ in self._layers if not math.isfinite(weights[place])]
        broken_feedback = [
            name for name, _, places in self._layers if not math.isfinite(sum(feedback[place] for place in places))
        ]
        if origins := [name for name in broken_feedback if name not in broken_weights]:
            return f"norm of the feedback of {origins[-1]}"
        if broken_weights:
            return f"norm of the weight of {broken_weights[0]}"
        return f"norm of the feedback of {broken_feedback[0]}" if broken_feedback else "norm of all weights"


@torch.no_grad()
def norms(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the norm of each tensor; many are measured in one pass where the device can."""
    return tuple(torch._foreach_norm(tensors)) if tensors else ()


def _total(norms: tuple[Tensor, ...]) -> Tensor:
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total
