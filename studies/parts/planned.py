"""Cells that are planned beforehand: each is trained in its turn, and none is stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wtdiag.studies.engine.cell import Cell, CellState, Outcome


class PlannedCells:
    """A `studies.engine.pool.CellSource` of cells that are known before the first is trained.

    Parameters
    ----------
    cells
        In the order in which they are to be trained.

    Attributes
    ----------
    outcomes : dict
        How those cells ended that have, by their path.
    """

    def __init__(self, cells: Iterable[Cell]) -> None:
        self._planned = list(cells)
        self.outcomes: dict[Path, Outcome] = {}
        self._line_up()

    @property
    def total(self) -> int:
        """How many cells there are."""
        return len(self._planned)

    def next(self) -> Cell | None:
        """Return the next cell."""
        return self._waiting.pop() if self._waiting else None

    def reported(self, cell: Cell, state: CellState) -> str:
        """Never stop one."""
        return ""

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Keep how a cell ended."""
        self.outcomes[cell.path] = outcome

    def _line_up(self) -> None:
        """Let all cells wait for their turn, those of an earlier start too."""
        self._waiting = self._planned[::-1]
