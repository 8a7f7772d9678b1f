"""Progress of a study where there is no terminal: a plain line now and then for all trainings together."""

import io
from pathlib import Path

from rich.console import Console

from wtdiag.studies.engine.board import Board
from wtdiag.studies.engine.cell import Cell, CellState, Outcome
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.loop import bars


def test_a_line_now_and_then_says_how_many_trainings_have_ended(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Board(4, Console(file=out, width=200)) as board:
        for i in range(4):
            cell = Cell(Path(f"cell{i}"), Settings())
            for step in range(3):
                now[0] += 4.0
                board.show(cell, CellState(step, 3, 1.0, 0.5, 0.5))
            board.ended(cell, Outcome("diverged" if i == 1 else "finished"))
    lines = out.getvalue().splitlines()
    assert lines == [
        "all  0%  after 0:00:12",
        "all  25%  1 of 4 trainings  after 0:00:24",
        "all  50%  2 of 4 trainings, 1 diverged  after 0:00:36",
        "all  75%  3 of 4 trainings, 1 diverged  after 0:00:48",
    ]


def test_a_study_without_trainings_shows_nothing():
    out = io.StringIO()
    with Board(0, Console(file=out)):
        pass
    assert not out.getvalue()
