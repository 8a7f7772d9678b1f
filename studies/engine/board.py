"""Table of progress: the number of cells that are done, and the state of those in training."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.trainers.loop.progress import tail


class Board:
    """Progress on a terminal; elsewhere nothing is shown.

    Parameters
    ----------
    total
        Number of all cells.
    console
        Where to print; messages belong on standard error.
    """

    def __init__(self, total: int, console: Console) -> None:
        shown = console.is_terminal and total > 0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not shown,
            refresh_per_second=4,
        )
        self._all = self._bars.add_task("all", total=total, numbers="")
        self._lines: dict[Path, TaskID] = {}
        self._counts: Counter[str] = Counter()

    def show(self, cell: Cell, state: CellState) -> None:
        """Show the state of a cell."""
        if cell.path not in self._lines:
            self._lines[cell.path] = self._bars.add_task(tail(cell.path.name, 32), total=state.total, numbers="")
        numbers = f"loss {state.loss:6.3f}" if math.isfinite(state.loss) else ""
        self._bars.update(self._lines[cell.path], completed=state.step, numbers=numbers)

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Count a cell that has ended."""
        if cell.path in self._lines:
            self._bars.remove_task(self._lines.pop(cell.path))
        self._counts[outcome.status] += 1
        others = [f"{count} {status}" for status, count in self._counts.items() if status != "finished"]
        self._bars.update(self._all, advance=1, numbers=", ".join(others))

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
