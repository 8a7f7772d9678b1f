"""Checks of a trained run beyond its analysis: `baseline`, `attack` and `similarity`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from wtdiag.diagnostics.analysis.owed import Arm, Baseline
    from wtdiag.trainers.observe.open_run import ModelRun

Done = Callable[[int, int], object]
"""Called with the number of parts that are done, and of all parts."""


def baseline(
    run: str | os.PathLike[str] | ModelRun,
    *,
    epochs: int = 10,
    seeds: int = 5,
    examples: int = 4000,
    tested: int = 2000,
    device: str = "auto",
    done: Done | None = None,
) -> Baseline:
    """Measure how much of a run's accuracy is owed to what its lower layers learned, and write ``baseline.json``.

    A last layer is trained anew, as a linear classifier, on the features of four versions of the layers below it: as
    the run left them, *frozen* at the run's initial weights, *re-randomised* for each seed, and *removed*, so that only
    the input is left. All have the same small budget, and seed by seed the same training examples and order.

    Parameters
    ----------
    run
        A run that ``wtdiag train`` made, and whose data is at hand.
    epochs, examples, tested
        The budget: epochs on so many training examples, and the number of test examples.
    seeds
        Number of paired seeds, at least 2.
    device
        Where to compute.
    done
        Function that is called with the number of trainings that are done, and of all.

    Returns
    -------
    Baseline
        Accuracies and differences as shares, with 95 % intervals over seeds and test examples.

    Raises
    ------
    InputError
        If a number is out of range, or the run's network or data cannot be had.
    """
    import numpy as np

    from wtdiag.diagnostics.analysis.owed import Baseline, write_baseline
    from wtdiag.trainers.observe.lower_layers import ARMS, answers
    from wtdiag.trainers.observe.recorded import recorded

    for name, value, least in (("epochs", epochs, 1), ("seeds", seeds, 2), ("examples", examples, 100)):
        if value < least:
            raise InputError(f"{name}: expected at least {least}, got {value}")
    if tested < 100:
        raise InputError(f"tested: expected at least 100, got {tested}")
    of = recorded(_opened(run), device)
    right: dict[str, list[NDArray[Any]]] = {arm: [] for arm in ARMS}
    found = answers(of, epochs=epochs, seeds=seeds, examples=examples, tested=tested)
    for count, (arm, _, answered) in enumerate(found, start=1):
        right[arm].append(answered)
        if done is not None:
            done(count, seeds * len(ARMS))
    tables = {arm: np.stack(each, axis=1).astype(float) for arm, each in right.items()}
    result = Baseline(
        step=of.step,
        seeds=seeds,
        epochs=epochs,
        examples=min(examples, len(of.data.train)),
        tested=len(tables["learned"]),
        arms={arm: _arm(table, tables["learned"]) for arm, table in tables.items()},
    )
    write_baseline(result, of.run.path)
    return result


def _arm(table: NDArray[np.float64], learned: NDArray[np.float64]) -> Arm:
    """Return the accuracy of an arm and the gain of the learned one over it; rows are test examples, columns seeds."""
    from wtdiag.diagnostics.analysis.owed import Arm
    from wtdiag.diagnostics.comparison.intervals import of_crossed_mean

    low, high = of_crossed_mean(table)
    gain = learned - table
    gain_low, gain_high = of_crossed_mean(gain) if gain.any() else (0.0, 0.0)
    return Arm(float(table.mean()), max(low, 0.0), min(high, 1.0), float(gain.mean()), gain_low, gain_high)


def _opened(run: str | os.PathLike[str] | ModelRun) -> ModelRun:
    from wtdiag.trainers.observe.open_run import open_run

    return open_run(run) if isinstance(run, (str, os.PathLike)) else run
