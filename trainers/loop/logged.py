"""Numbers of a training of ``wtdiag train`` for loggers, while it runs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from wtdiag.trainers.callbacks.hook import LIVE_EVERY, LOG_EVERY
from wtdiag.trainers.callbacks.live import live_measures
from wtdiag.trainers.callbacks.loggers import Loggers
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.resume import TrainingProgress


class LoggedTraining:
    """The loggers of one training: loss, accuracies and throughput every ten steps, measures of the layers every fifty.

    The measures are the weight angle and the norm ratio, and where the S-guard is on, the step-size number S that it
    measures.

    Parameters
    ----------
    training
        A training whose run directory is there.
    kinds
        Names of loggers.
    resume
        Whether the training goes on after an earlier part.

    Raises
    ------
    InputError
        If a logger is not known or cannot be used.
    """

    def __init__(self, training: Training, kinds: Iterable[str], *, resume: bool) -> None:
        self._training = training
        self._loggers = Loggers(kinds, training.out, training.settings.as_dict(), resume=resume)
        self._tested = math.nan

    def __call__(self, progress: TrainingProgress) -> None:
        """Send the numbers of a step, if it is time to; after the last step all is sent."""
        last = progress.status != "running"
        if progress.step % LOG_EVERY == 0 or last:
            numbers = {"loss": progress.loss, "accuracy": progress.accuracy, "throughput": progress.throughput}
            if progress.test_accuracy != self._tested:
                self._tested = progress.test_accuracy
                numbers[f"{progress.tested_on}_accuracy"] = progress.test_accuracy
            self._loggers.log(progress.step, numbers)
        if progress.step % LIVE_EVERY == 0 or last:
            self._loggers.log(
                progress.step, live_measures(self._training.model) | self._step_size_numbers(progress.step)
            )
        if last:
            self._loggers.close()

    def close(self) -> None:
        """Wait until all is sent."""
        self._loggers.close()

    def _step_size_numbers(self, step: int) -> dict[str, float]:
        learner = self._training.learner
        _, lr = learner.rates(max(0, step - 1))
        if learner.guard is None or lr is None:
            return {}
        return {f"step_size_number/{name}": float(number) for name, number in learner.guard.numbers(lr).items()}
