"""One training step, the same for a run and for the estimate of its cost, and evaluation between steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.config.build import DTYPES
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import set_rule, synapses
from wtdiag.trainers.loop.learner import Learner


class StepResult(NamedTuple):
    """The result of a step.

    Attributes
    ----------
    loss, accuracy : float
        Loss and accuracy on the batch, before the step.
    forward_norm : float
        Norm of the weights of all converted layers, after the step.
    feedback_norm : float or None
        Norm of all learned feedback weights, after the step; None if no feedback is learned.
    non_finite : str
        The value that is no longer finite, "loss" or the name of a norm; "" if all are finite.
    """

    loss: float
    accuracy: float = math.nan
    forward_norm: float = math.nan
    feedback_norm: float | None = None
    non_finite: str = ""


class Evaluation(NamedTuple):
    """The result of an evaluation: mean loss, accuracy, and for each example whether it was right, on the CPU."""

    loss: float
    accuracy: float
    right: Tensor


class Stepper:
    """The steps of one run, on its network.

    Parameters
    ----------
    model
        The converted network, on its device.
    learner
        The optimisers of its weights.
    settings
        Loss, precision and coefficients.
    device
        The device to compute on.
    """

    def __init__(self, model: nn.Module, learner: Learner, settings: Settings, device: torch.device) -> None:
        self._model, self._learner, self._settings, self._device = model, learner, settings, device
        self._scheduled = settings.has_scheduled_coefficients  # asked once: the answer is needed at each step

    def place(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch moved to the device, in the precision of the weights."""
        dtype = DTYPES[self._settings.precision]
        return x.to(self._device, dtype, non_blocking=True), y.to(self._device, non_blocking=True)

    def take(self, step: int, x: Tensor, y: Tensor, *, always: bool = False) -> StepResult:
        """Take the step from ``step`` to ``step + 1`` on a batch that `place` returned.

        If the loss is not finite, the weights do not move, except with ``always``, which is for measuring the cost.
        """
        model, learner = self._model, self._learner
        if self._scheduled:
            set_rule(model, learner.rule_at(step))
        model.train()
        learner.begin(step)
        with self._autocast():
            output = model(x)
            loss_tensor = F.cross_entropy(output, y, label_smoothing=self._settings.label_smoothing)
        loss = loss_tensor.item()
        if not (math.isfinite(loss) or always):
            if learner.guard:
                learner.guard.end()
            return StepResult(loss, non_finite="loss")
        loss_tensor.backward()  # type: ignore[no-untyped-call]
        learner.step(step)
        accuracy = (output.detach().argmax(1) == y).double().mean().item()
        forward_norm = _norm(learner.weights)
        feedback_norm = _norm(learner.feedback) if learner.feedback else None
        finite = math.isfinite(forward_norm + (feedback_norm or 0.0))
        return StepResult(loss, accuracy, forward_norm, feedback_norm, "" if finite else _first_non_finite(model))

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Evaluate the network on all examples of the batches."""
        self._model.eval()
        loss, right = 0.0, []
        for batch in batches:
            x, y = self.place(*batch)
            with self._autocast():
                output = self._model(x)
                loss += F.cross_entropy(output, y, reduction="sum").item()
            right.append((output.argmax(1) == y).cpu())
        flags = torch.cat(right)
        return Evaluation(loss / len(flags), int(flags.sum()) / len(flags), flags)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16")


def _first_non_finite(model: nn.Module) -> str:
    """Return where the numbers that are not finite began: those of B spread down to the W of the layers below."""
    broken = {
        kind: [name for name, layer in synapses(model) if not math.isfinite(_norm([getattr(layer, kind)]))]
        for kind in ("weight", "feedback")
    }
    if origins := [name for name in broken["feedback"] if name not in broken["weight"]]:
        return f"norm of the feedback of {origins[-1]}"
    kind = "weight" if broken["weight"] else "feedback"
    return f"norm of the {kind} of {broken[kind][0]}" if broken[kind] else "norm of all weights"


def _norm(tensors: list[Tensor]) -> float:
    return torch.nn.utils.get_total_norm(tensors).item()
