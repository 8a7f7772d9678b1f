"""Loggers of numbers by step: TensorBoard, Weights & Biases and MLflow, each an extra.

They write into ``logs/`` of the run directory, so that they work without a network. Weights & Biases is offline with
``WANDB_MODE=offline``; MLflow writes a database there unless ``MLFLOW_TRACKING_URI`` names a server.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from wtdiag.probes.errors import InputError, check_one_of, first_line

LOGS = "logs"
_SECONDS = 5.0  # between two calls of MLflow
_BATCH = 900  # the most metrics in one; MLflow takes a thousand


class Logger(Protocol):
    """A place that numbers are sent to."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers of a step."""

    def close(self) -> None:
        """Wait until all is sent."""


class TensorBoard:
    """Event files for ``tensorboard --logdir``."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write numbers of a step."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, which a resumed training goes on with."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        key = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(
            project="wtdiag", name=name, dir=str(folder), id=key, resume="allow", reinit="create_new",
            config=dict(config), settings=settings,
        )  # fmt: skip

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers of a step."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class Mlflow:
    """A run of MLflow in the experiment "wtdiag"."""

    def __init__(self, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        where = os.environ.get("MLFLOW_TRACKING_URI")
        if where is None:
            folder.mkdir(parents=True, exist_ok=True)
            where = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(where)
        experiment = self._client.get_experiment_by_name("wtdiag")
        kept = experiment.experiment_id if experiment is not None else self._client.create_experiment("wtdiag")
        self._run = self._client.create_run(kept, run_name=name).info.run_id
        params = [Param(key, str(value)) for key, value in config.items() if not isinstance(value, Mapping | list)]
        self._client.log_batch(self._run, params=params)
        self._waiting: list[Any] = []
        self._due = time.monotonic()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers of a step, together with those of the next seconds: each call takes milliseconds."""
        now = int(1000 * time.time())
        self._waiting += [self._metric(name, value, now, step) for name, value in numbers.items()]
        if time.monotonic() > self._due or len(self._waiting) > _BATCH:
            self._send()

    def close(self) -> None:
        """Send what is left, and mark the run as finished."""
        self._send()
        self._client.set_terminated(self._run)

    def _send(self) -> None:
        for first in range(0, len(self._waiting), _BATCH):
            self._client.log_batch(self._run, metrics=self._waiting[first : first + _BATCH])
        self._waiting, self._due = [], time.monotonic() + _SECONDS


LOGGERS: Mapping[str, Callable[[Path, str, Mapping[str, Any]], Logger]] = MappingProxyType(
    {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}
)
"""The loggers by name, which is also that of the extra that installs what they need."""


class Loggers:
    """Several loggers of one run; one that fails is left out with a warning, and the training goes on.

    Parameters
    ----------
    kinds
        Names in `LOGGERS`.
    path
        The run directory.
    config
        Settings to show beside the numbers.
    resume
        Whether to go on after what an earlier part of the training logged; else that is removed.

    Raises
    ------
    InputError
        If a name is not known, or what it needs is not installed.
    """

    def __init__(self, kinds: Iterable[str], path: Path, config: Mapping[str, Any], *, resume: bool = False) -> None:
        self._loggers: dict[str, Logger] = {}
        for kind in dict.fromkeys(kinds):
            check_logger(kind)
            folder = path / LOGS / kind
            if not resume and not folder.is_symlink() and not folder.parent.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
            try:
                self._loggers[kind] = LOGGERS[kind](folder, path.resolve().name, config)
            except ImportError as error:
                raise InputError(
                    f"log: {kind} needs {error.name}; install it with: pip install 'wtdiag[{kind}]'"
                ) from None
            except Exception as error:  # whatever the logger's library raises
                raise InputError(f"log: {kind} cannot be used ({first_line(error)})") from error

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def log(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Send the numbers among some values; those that are not finite, or no numbers, are left out."""
        known = {name: float(value) for name, value in numbers.items() if _is_number(value)}
        if known:
            self._each(lambda logger: logger.log(step, known))

    def close(self) -> None:
        """Wait until all is sent."""
        self._each(lambda logger: logger.close())
        self._loggers.clear()

    def _each(self, call: Callable[[Logger], None]) -> None:
        for kind, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:  # whatever the logger's library raises; the training matters more
                del self._loggers[kind]
                warnings.warn(f"log: {kind} failed and is left out from here on ({first_line(error)})", stacklevel=3)


def check_logger(kind: str) -> None:
    """Require the name of a logger.

    Raises
    ------
    InputError
        If it is not known.
    """
    check_one_of("log", kind, LOGGERS)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
