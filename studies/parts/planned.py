"""Cells that are known in advance; they are trained in order, and none is stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wtdiag.studies.engine.cell import Cell, CellState, Outcome


class PlannedCells:
    """A `studies.engine.cell.CellSource` whose cells are known before the first is trained.

    Parameters
    ----------
    cells
        The cells, in the order of their training.

    Attributes
    ----------
    outcomes : dict
        Outcomes of the cells that have ended, by path.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._planned = list(cells)
        self.outcomes: dict[Path, Outcome] = {}
        self._line_up()

    @property
    def total(self) -> int:
        """Number of all cells."""
        return len(self._planned)

    def next(self) -> Cell | None:
        """Return the next cell; None if there is none."""
        return self._waiting.pop() if self._waiting else None

    def reported(self, cell: Cell, state: CellState) -> str:
        """Return "", so that no cell is stopped."""
        return ""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Keep the outcome of a cell."""
        self.outcomes[cell.path] = outcome

    def _line_up(self) -> None:
        """Queue all cells, including those that an earlier start has trained."""
        self._waiting = self._planned[::-1]
