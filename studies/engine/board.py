"""Table of progress: the number of cells that are done, and on a terminal the state of those in training."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.trainers.loop.bars import Bars, tail


class Board:
    """Bars on a terminal; elsewhere, such as in the log of a batch job, a line now and then for all cells together.

    Parameters
    ----------
    total
        Number of all cells.
    console
        Where to print; messages belong on standard error.
    """

    def __init__(self, total: int, console: Console) -> None:
        self._total = total
        self._bars = Bars(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._all = self._bars.add_task("all", total=total, numbers="")
        self._lines: dict[Path, TaskID] = {}
        self._counts: Counter[str] = Counter()

    def show(self, cell: Cell, state: CellState) -> None:
        """Show the state of a cell."""
        if not self._bars.console.is_terminal:
            self._bars.update(self._all)
            return
        if cell.path not in self._lines:
            self._lines[cell.path] = self._bars.add_task(tail(cell.path.name, 32), total=state.total, numbers="")
        numbers = f"loss {state.loss:6.3f}" if math.isfinite(state.loss) else ""
        self._bars.update(self._lines[cell.path], completed=state.step, numbers=numbers)

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Count a cell that has ended."""
        if cell.path in self._lines:
            self._bars.remove_task(self._lines.pop(cell.path))
        self._counts[outcome.status] += 1
        numbers = [f"{count} {status}" for status, count in self._counts.items() if status != "finished"]
        if not self._bars.console.is_terminal:
            numbers.insert(0, f"{self._counts.total()} of {self._total} trainings")
        self._bars.update(self._all, advance=1, numbers=", ".join(numbers))

    def __enter__(self) -> Self:
        if self._total:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
