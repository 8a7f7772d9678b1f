"""The progress of several runs that train side by side, with a line for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from wtdiag.probes.errors import InputError
from wtdiag.trainers.data.loading import losses_named
from wtdiag.trainers.loop.bars import Bars, tail
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.resume import TrainingProgress


def follow(
    trainings: Mapping[str, Training], console: Console, each: Callable[[str, TrainingProgress], None] | None = None
) -> dict[str, TrainingProgress]:
    """Train all runs to their end, one step of each in turn, and return the progress of each at its end.

    Bars are drawn if ``console`` is a terminal; else a plain line is printed now and then.

    Parameters
    ----------
    trainings
        The runs by the names to show.
    console
        The console to draw on; it should be that of standard error.
    each
        What is called after each step with the run's name and its progress.

    Raises
    ------
    InputError
        As the runs do, and if a process that reads images for them is killed.
    """
    with (
        losses_named(),
        Bars(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        ) as bars,
    ):
        tasks = {
            name: bars.add_task(tail(name, 24), total=training.total, completed=training.progress.step, numbers="")
            for name, training in trainings.items()
        }
        waiting = {name: iter(training) for name, training in trainings.items()}
        try:
            while waiting:
                for name, steps in list(waiting.items()):
                    state = next(steps, None)
                    if state is None:
                        del waiting[name]
                    else:
                        _show(bars, tasks[name], state)
                        if each is not None:
                            each(name, state)
        finally:  # if one run fails, the others are interrupted
            for training in trainings.values():
                with suppress(InputError):
                    training.close()
    return {name: training.progress for name, training in trainings.items()}


def _show(bars: Bars, task: TaskID, state: TrainingProgress) -> None:
    numbers = f"loss {state.loss:6.3f}  acc {100 * state.accuracy:3.0f} %"
    if not math.isnan(state.test_accuracy):
        numbers += f"  {state.tested_on} {100 * state.test_accuracy:.1f} %"
    numbers += f"  {state.throughput:6.0f}/s"
    if state.status == "diverged":
        numbers = f"[red]diverged at step {state.step + 1}[/red]"
    bars.update(task, completed=state.step, numbers=numbers)


def table(states: Mapping[str, TrainingProgress]) -> Table:
    """Return a table of the final results, with one row per run."""
    result = Table(box=None, pad_edge=False)
    for column, justify in (("run", "left"), ("status", "left"), ("steps", "right"), ("loss", "right")):
        result.add_column(column, justify=justify)  # type: ignore[arg-type]
    tested_on = "/".join(dict.fromkeys(state.tested_on for state in states.values()))
    result.add_column(f"{tested_on} accuracy, %", justify="right")
    for name, state in states.items():
        status = f"{state.status}: {state.reason}" if state.reason else state.status
        accuracy = "" if math.isnan(state.test_accuracy) else f"{100 * state.test_accuracy:.2f}"
        result.add_row(Text(tail(name, 32)), Text(status), str(state.step), f"{state.loss:.4f}", accuracy)
    return result
