"""One training step, the same for a run and for the estimate of its cost, and evaluation between steps."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wtdiag.trainers.config.build import DTYPES
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import set_rule
from wtdiag.trainers.loop.distributed import Ranks, Share
from wtdiag.trainers.loop.learner import Learner
from wtdiag.trainers.loop.metrics import StepResult, norms
from wtdiag.trainers.loop.passes import Passes


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
    ranks
        This process among those that train the run; by default it is alone.
    """

    def __init__(
        self,
        model: nn.Module,
        learner: Learner,
        settings: Settings,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        self._model, self._learner, self._settings, self._device = model, learner, settings, device
        self._ranks = ranks or Ranks()
        network: Any = self._ranks.wrap(model, settings)
        if settings.compile:
            # The runs of one process share code, which is compiled only so often before the compiler gives up.
            torch.compiler.reset()
            # The last batch of an epoch is smaller. Where sizes vary, coefficients become variables too, which the
            # compiler cannot take into a backward pass. Only training is compiled: evaluations are few.
            network = torch.compile(network, dynamic=False)
        self._passes = Passes(network, settings.accumulate, self._ranks)
        self._scheduled = settings.has_scheduled_coefficients  # asked once: the answer is needed at each step

    def place(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch moved to the device, in the precision of the weights."""
        dtype = DTYPES[self._settings.precision]
        layout = torch.channels_last if self._settings.channels_last else torch.preserve_format
        return x.to(self._device, dtype, non_blocking=True, memory_format=layout), y.to(self._device, non_blocking=True)

    def take(self, step: int, x: Tensor, y: Tensor, share: Share | None = None) -> StepResult:
        """Take the step from ``step`` to ``step + 1`` on a batch that `place` returned, without waiting for the device.

        With ``share``, the batch is that of all processes, and x and y are this one's examples of it.
        The weights move even if the loss is not finite: that is known only when the result is read.
        """
        model, learner, ranks = self._model, self._learner, self._ranks
        if self._scheduled:
            set_rule(model, learner.rule_at(step))
        if not model.training:
            model.train()
        ranks.begin(step)
        learner.begin(step)
        loss, accuracy = self._passes.run(x, y, share or ranks.share(len(y)), self._loss)
        with ranks.same_draws(self._device):
            learner.step(step)
        scale = learner.guard.scale if learner.guard else None
        measured, count = norms(learner.weights + learner.feedback), len(learner.weights)
        return StepResult(loss, accuracy, measured[:count], measured[count:], scale)

    def _loss(self, network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            output = network(x)
            return output, F.cross_entropy(output, y, label_smoothing=self._settings.label_smoothing)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
        """Evaluate the network on all examples of the batches, which are this process's, together with the others."""
        self._model.eval()
        self._ranks.copy_from_first(self._model.buffers())  # the statistics of batch norm that are recorded
        loss, right = torch.zeros((), dtype=torch.float64, device=self._device), []
        for batch in batches:
            x, y = self.place(*batch)
            with self._autocast():
                output = self._model(x)
                loss += F.cross_entropy(output, y, reduction="sum")
            right.append(output.argmax(1) == y)
        flags = self._ranks.joined(torch.cat(right).cpu() if right else torch.zeros(0, dtype=torch.bool))
        total = float(self._ranks.joined(loss.reshape(1).cpu()).sum())
        return Evaluation(total / len(flags), int(flags.sum()) / len(flags), flags)

    def _autocast(self) -> AbstractContextManager[None]:
        if self._settings.precision != "bfloat16":  # even an autocast that is not enabled empties a cache at its end
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)
