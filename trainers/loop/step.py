"""One training step, the same for a run and for the estimate of its cost, and evaluation between steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.config.build import DTYPES
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import set_rule
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.metrics import StepResult, norms


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

    def take(self, step: int, x: Tensor, y: Tensor) -> StepResult:
        """Take the step from ``step`` to ``step + 1`` on a batch that `place` returned, without waiting for the device.

        The weights move even if the loss is not finite: that is known only when the result is read.
        """
        model, learner = self._model, self._learner
        if self._scheduled:
            set_rule(model, learner.rule_at(step))
        if not model.training:
            model.train()
        learner.begin(step)
        with self._autocast():
            output = model(x)
            loss = F.cross_entropy(output, y, label_smoothing=self._settings.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        learner.step(step)
        accuracy = (output.detach().argmax(1) == y).double().mean()
        scale = learner.guard.scale if learner.guard else None
        return StepResult(loss.detach(), accuracy, norms(learner.weights), norms(learner.feedback), scale)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Evaluate the network on all examples of the batches."""
        self._model.eval()
        loss, right = torch.zeros((), dtype=torch.float64, device=self._device), []
        for batch in batches:
            x, y = self.place(*batch)
            with self._autocast():
                output = self._model(x)
                loss += F.cross_entropy(output, y, reduction="sum")
            right.append(output.argmax(1) == y)
        flags = torch.cat(right).cpu()
        return Evaluation(loss.item() / len(flags), int(flags.sum()) / len(flags), flags)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16")
