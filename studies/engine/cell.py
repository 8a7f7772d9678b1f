"""One training of a study: its settings, state and outcome."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from wtdiag.diagnostics.analysis.analyze import read_analysis
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.bits import from_text
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import ANALYSIS, CONFIG, METRICS, Run, open_run
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.launch import status, stored


@dataclass(frozen=True)
class Cell:
    """A training of a study.

    Attributes
    ----------
    path : Path
        Its run directory.
    settings : Settings
        The settings of the training.
    probes : tuple of str
        Names of the measures to write into ``analysis.nc`` when it has ended.
    watch : bool
        Whether its source decides at watch points if it continues; see `CellSource.reported`.
    """

    path: Path
    settings: Settings
    probes: tuple[str, ...] = ()
    watch: bool = False

    def anywhere(self) -> Cell:
        """Return the cell with paths that mean the same in any working directory."""
        settings = self.settings
        if settings.data_dir is not None:
            settings = dataclasses.replace(settings, data_dir=str(Path(settings.data_dir).resolve()))
        return dataclasses.replace(self, path=self.path.resolve(), settings=settings)


@dataclass(frozen=True)
class CellState:
    """State of a training.

    Attributes
    ----------
    step, total : int
        Steps taken so far, and steps of the whole training.
    loss, accuracy : float
        Loss and accuracy on the last training batch.
    evaluated : float
        Accuracy of the last evaluation on test or held-out examples; NaN before the first.
    step_size_number, log_gain : float
        Results of `studies.predict.live_stability.stability` at the watch points of a watched cell; otherwise NaN.
    """

    step: int
    total: int
    loss: float
    accuracy: float
    evaluated: float
    step_size_number: float = math.nan
    log_gain: float = math.nan


@dataclass(frozen=True)
class Outcome:
    """Outcome of a training.

    Attributes
    ----------
    status : str
        "finished", "diverged", "pruned", "failed" or "interrupted".
    reason : str
        Why it did not finish.
    step : int
        The last step taken.
    accuracy, loss : float
        Of the last evaluation, not the best, on test or held-out examples. A training that diverged counts as answering
        at chance: accuracy 1 / classes, loss log(classes). NaN if it neither finished nor diverged.
    seconds : float
        Time spent in training steps.
    right : bytes
        For each example of the last evaluation, in order, 1 if it was right, else 0; empty if it is not known.
    """

    status: str
    reason: str = ""
    step: int = 0
    accuracy: float = math.nan
    loss: float = math.nan
    seconds: float = math.nan
    right: bytes = b""


class CellSource(Protocol):
    """A source of cells to train, which receives the outcome of each."""

    @property
    def total(self) -> int:
        """Number of all cells."""

    def next(self) -> Cell | None:
        """Return the next cell to train; None while there is none."""

    def reported(self, cell: Cell, state: CellState) -> str:
        """Return why a watched cell in some state should be stopped, and so end as "pruned"; "" to continue it.

        This is called before the first step and at the end of epochs 1, 2, 4, 8 ...; the training waits for the answer.
        """

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Receive the outcome of a cell."""


def outcome_of(path: Path) -> Outcome | None:
    """Read the outcome of a training from its run directory; None if there is no run.

    A training that is neither finished, diverged nor pruned was interrupted.

    Raises
    ------
    InputError
        If the files are damaged.
    """
    if not (path / CONFIG).exists():
        return None
    run = open_run(path)
    status = run.config.get("status")
    metrics = run.metrics if (path / METRICS).exists() else pd.DataFrame()
    steps = pd.to_numeric(metrics["step"], errors="coerce").dropna() if "step" in metrics else pd.Series(dtype=float)
    steps = steps[np.isfinite(steps)]
    step = int(steps.iloc[-1]) if len(steps) else 0
    if status not in ENDED:
        return Outcome("interrupted", "not finished", step)
    accuracy, loss = _last(run, metrics)
    tested = run.config.get("tested")
    right = b"" if tested is None else from_text(tested, str(path / CONFIG))
    return Outcome(str(status), _reason(run), step, accuracy, loss, _seconds(run, metrics), right)


def is_done(cell: Cell) -> bool:
    """Return whether nothing is left to do for a cell: it has ended, and its measures are written.

    Raises
    ------
    InputError
        If its directory holds a run with other settings.
    """
    if not (cell.path / CONFIG).exists():
        return False
    stored(cell.path, cell.settings.as_dict())
    ended = status(cell.path)
    if ended not in ENDED:
        return False
    if not cell.probes or ended == "pruned":
        return True
    return (cell.path / ANALYSIS).exists() and set(cell.probes) <= set(read_analysis(cell.path / ANALYSIS).data_vars)


def _last(run: Run, metrics: pd.DataFrame) -> tuple[float, float]:
    """Return accuracy and loss of the last evaluation."""
    if run.config["status"] == "pruned":
        return math.nan, math.nan
    if run.config["status"] == "diverged":
        network = run.config.get("network")
        classes = network.get("classes") if isinstance(network, dict) else None
        if not isinstance(classes, int) or classes < 1:
            raise InputError(f"{run.path / CONFIG}: 'network' does not give the number of classes")
        return 1 / classes, math.log(classes)
    split = "validation" if "validation_accuracy" in metrics else "test"
    last = []
    for name in (f"{split}_accuracy", f"{split}_loss"):
        logged = pd.to_numeric(metrics[name], errors="coerce").dropna() if name in metrics else pd.Series(dtype=float)
        last.append(float(logged.iloc[-1]) if len(logged) else math.nan)
    return last[0], last[1]


def _reason(run: Run) -> str:
    match run.config:
        case {"status": "diverged", "diverged": {"what": str(what), "step": int(step)}}:
            return f"{what} not finite at step {step}"
        case {"status": "pruned", "pruned": {"why": str(why)}}:
            return why
    return ""


def _seconds(run: Run, metrics: pd.DataFrame) -> float:
    """Return the time of all steps in seconds, from the throughput that was logged."""
    settings = run.config.get("settings")
    size = settings.get("batch_size") if isinstance(settings, dict) else None
    if not isinstance(size, int) or "throughput" not in metrics:
        return math.nan
    rates = pd.to_numeric(metrics["throughput"], errors="coerce")
    return float((size / rates[rates > 0]).sum())
