"""A hook for plain training loops: called once after each step, it records, logs and measures when it is time to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.entries import is_plain, plain_value, whole
from wtdiag.trainers.callbacks.live import live_measures
from wtdiag.trainers.callbacks.loggers import Loggers, check_logger
from wtdiag.trainers.observe.inputs import Inputs
from wtdiag.trainers.record.foreign_layers import Pairs, Signals
from wtdiag.trainers.record.recorder import Recorder

LOG_EVERY = 10
"""Steps between two lines of metrics, so that no other step waits for the device."""
LIVE_EVERY = 50
"""Steps between two measurements of the weights for the loggers."""
_TAKEN = frozenset({"self", "step"})  # names of parameters


class Hook:
    """A hook that records a training: a snapshot every so many steps, a line of metrics every ten.

    Parameters
    ----------
    model, path, pairs, signals, config, probe_batch, force
        As for `trainers.record.recorder.Recorder`.
    every
        Steps between two snapshots; the first is taken before training, the last at its end.
    log
        Loggers that are sent the metrics and, every fifty steps, the weight angle and norm ratio of each layer:
        "tensorboard", "wandb", "mlflow".

    Raises
    ------
    InputError
        As `Recorder` does; or if a logger is not known or not installed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from wtdiag.probes.records.schema import open_run
    >>> from wtdiag.trainers.layers.convert import transport_free
    >>> model = transport_free(nn.Sequential(nn.Linear(3, 2)), "kp")
    >>> with Hook(model, Path(tempfile.mkdtemp(), "mine"), every=20) as hook:
    ...     for step in range(30):
    ...         hook(loss=1 / (step + 1))  # after the optimiser's step
    >>> run = open_run(hook.path)
    >>> run.steps, run.metrics.step.tolist()
    (array([ 0, 20, 30]), [1, 10, 20, 30])
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        every: int = 100,
        log: Iterable[str] = (),
        pairs: Pairs | None = None,
        signals: Signals | None = None,
        config: Mapping[str, Any] | None = None,
        probe_batch: tuple[Inputs, Tensor] | None = None,
        force: bool = False,
    ) -> None:
        if whole("every", every) < 1:
            raise InputError(f"every: expected a whole number of at least 1, got {every}")
        kinds = [log] if isinstance(log, str) else list(log)
        for kind in kinds:
            check_logger(kind)
        self._model, self._every, self.step, self._metrics = model, every, 0, dict[str, Any]()
        self._recorder = Recorder(
            model, path, pairs=pairs, signals=signals, config=config, probe_batch=probe_batch, force=force
        )
        self.path = self._recorder.path
        settings = (config or {}).get("settings", {})
        self._loggers = Loggers(kinds if self._recorder.active else (), self.path, settings)
        self._recorder.snapshot(0)

    def __call__(self, **metrics: Any) -> None:
        """Note that the optimiser took a step, with metrics such as ``loss`` and ``accuracy`` of its batch."""
        self.step += 1
        self._metrics = metrics
        if self.step == 1 or self.step % LOG_EVERY == 0:
            self._log()
        if self._loggers and self.step % LIVE_EVERY == 0:
            self._loggers.log(self.step, live_measures(self._recorder.model, self._recorder.reader))
        if self.step % self._every == 0:
            self._recorder.snapshot(self.step)

    def log(self, **metrics: Any) -> None:
        """Log metrics of the present step at once, such as ``test_accuracy`` after an evaluation."""
        if metrics:
            self._recorder.log(self.step, **metrics)
            if self._loggers:
                self._loggers.log(self.step, {name: plain_value(name, value) for name, value in metrics.items()})

    def log_known(self, metrics: Mapping[str, Any]) -> None:
        """Log those among what a library logs, which may be anything, that are numbers or texts."""
        self.log(**{name: value for name, value in metrics.items() if name not in _TAKEN and is_plain(value)})

    def close(self, status: str = "finished") -> None:
        """Take the last snapshot, wait until all is written, and end the run; a second call does nothing."""
        if self._recorder.is_open:
            try:
                if status == "finished" and self.step not in self._recorder.steps:
                    self._recorder.snapshot(self.step)
                self._log()
            finally:
                self._recorder.close(status)
                self._loggers.close()

    def _log(self) -> None:
        metrics, self._metrics = self._metrics, {}
        self.log(**metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("finished" if error is None else "interrupted")
