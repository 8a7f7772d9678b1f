import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import TextColumn

from wtdiag.trainers.loop import bars as module
from wtdiag.trainers.loop.bars import Bars


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def lines(clock, seconds, *, numbers="", terminal=False):
    """Return what bars print that are updated once a second, or more often where nothing happens."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=80)
    with Bars(TextColumn("{task.description}"), console=console) as bars:
        task = bars.add_task("[ia]", total=max(seconds))
        for second in seconds:
            clock.now = 100.0 + second
            bars.update(task, completed=second, numbers=numbers)
    return out.getvalue().splitlines()


def test_a_line_every_ten_seconds(clock):
    seen = lines(clock, range(41), numbers="loss  0.5  [red]diverged[/red]")
    assert seen == [f"[ia]  {25 * n}%  loss  0.5  diverged  after 0:00:{10 * n}" for n in (1, 2, 3, 4)]


def test_what_is_quick_prints_nothing(clock):
    assert lines(clock, range(10)) == []


def test_the_log_of_a_day_is_short(clock):
    seen = lines(clock, range(0, 86401, 5))
    assert 20 < len(seen) < 160
    assert seen[-1].split("  after ")[1] > "22:00:00"


def test_a_terminal_has_bars_only(clock):
    assert not any("after" in line for line in lines(clock, range(41), terminal=True))
