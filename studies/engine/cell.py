"""One training among many: what is to be trained, where it stands, how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from wtdiag.diagnostics.analysis.analyze import read_analysis
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.rundir import ENDED
from wtdiag.probes.records.schema import ANALYSIS, CONFIG, METRICS, Run, open_run
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop.launch import status, stored


@dataclass(frozen=True)
class Cell:
    """One training to be made.

    Attributes
    ----------
    path : Path
        Its run directory.
    settings : Settings
        What to train and how.
    probes : tuple of str
        What to measure into ``analysis.nc`` when it has ended.
    watch : bool
        Whether its source is asked at watch points whether to go on; see `studies.engine.pool.CellSource.reported`.
    """

    path: Path
    settings: Settings
    probes: tuple[str, ...] = ()
    watch: bool = False


@dataclass(frozen=True)
class CellState:
    """Where a training stands.

    Attributes
    ----------
    step, total : int
        Steps taken, and to be taken.
    loss, accuracy : float
        On the last training batch.
    evaluated : float
        Accuracy of the last evaluation on test or held-out examples; NaN before the first.
    step_size_number, log_gain : float
        As `studies.predict.live_stability.stability` gives them, at the watch points of a watched cell; otherwise NaN.
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
    """How a training ended.

    Attributes
    ----------
    status : str
        "finished", "diverged", "pruned", "failed" or "interrupted".
    reason : str
        Why it did not finish.
    step : int
        Last step taken.
    accuracy, loss : float
        Of the last evaluation, not the best, on test or held-out examples. A training that diverged answers at chance:
        accuracy 1 / classes, loss log(classes). NaN where it neither finished nor diverged.
    seconds : float
        Time spent in training steps.
    """

    status: str
    reason: str = ""
    step: int = 0
    accuracy: float = math.nan
    loss: float = math.nan
    seconds: float = math.nan


def outcome_of(path: Path) -> Outcome | None:
    """Read from a run directory how the training ended; None where there is no run.

    One that is neither finished, diverged nor pruned was interrupted.

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
    return Outcome(str(status), _reason(run), step, accuracy, loss, _seconds(run, metrics))


def is_done(cell: Cell) -> bool:
    """Whether nothing is left to do for a cell: it has ended, and is measured if it is to be.

    Raises
    ------
    InputError
        If its directory holds a run of other settings.
    """
    if not (cell.path / CONFIG).exists():
        return False
    stored(cell.path, cell.settings.as_dict())
    how = status(cell.path)
    if how not in ENDED:
        return False
    if not cell.probes or how == "pruned":
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
            raise InputError(f"{run.path / CONFIG}: 'network' does not tell the number of classes")
        return 1 / classes, math.log(classes)
    held = "validation" if "validation_accuracy" in metrics else "test"
    last = []
    for name in (f"{held}_accuracy", f"{held}_loss"):
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
    """Time of all steps, from the throughput that was logged."""
    settings = run.config.get("settings")
    size = settings.get("batch_size") if isinstance(settings, dict) else None
    if not isinstance(size, int) or "throughput" not in metrics:
        return math.nan
    rates = pd.to_numeric(metrics["throughput"], errors="coerce")
    return float((size / rates[rates > 0]).sum())
