"""Bars of progress on a terminal; elsewhere, such as in the log of a batch job, a plain line now and then."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID
from rich.text import Text

EVERY = 10.0
"""Seconds between two lines at first."""
LATER = 0.05
"""The same as a share of the time since the start, so that a run of days does not fill its log."""


class Bars(Progress):
    """Rich's bars on a terminal, and elsewhere a line for each task every 10 s, later every 5 % of the time so far.

    A line has the task's description, its percentage, its field ``numbers`` if it has one, and the time so far.

    Parameters
    ----------
    columns
        What is drawn on a terminal.
    console
        Where to draw; messages belong on standard error.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        super().__init__(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4)
        self._began = time.monotonic()
        self._next: dict[TaskID, float] = {}

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task, and print its line if it is time to."""
        super().update(task_id, **changes)
        if not self.disable:
            return
        now = time.monotonic() - self._began
        if now >= self._next.setdefault(task_id, EVERY):
            self._next[task_id] = now + max(EVERY, LATER * now)
            self._say(task_id, now)

    def _say(self, task_id: TaskID, now: float) -> None:
        task = self._tasks[task_id]
        numbers = Text.from_markup(str(task.fields.get("numbers", ""))).plain
        minutes, seconds = divmod(int(now), 60)
        passed = f"after {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        line = "  ".join(filter(None, (task.description, f"{task.percentage:.0f}%", numbers, passed)))
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def tail(name: str, width: int) -> str:
    """Return the end of a path, which distinguishes it from others, in at most ``width`` characters."""
    return name if len(name) <= width else "…" + name[1 - width :]
