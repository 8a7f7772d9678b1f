"""What rich draws for the command line: tables and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from wtdiag.cli.terminal import writing
from wtdiag.probes.errors import printable


class Screen(Console):
    """A console that shows text as it is: no markup, no emoji names, no characters that control a terminal."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of an object, their text filtered."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else "\n".join(map(printable, segment.text.split("\n")))
            yield segment._replace(text=text)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; an error in writing to standard output names it."""
        with nullcontext() if self.stderr else writing():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the command line what to do when nobody reads."""
        raise


@contextmanager
def counted(name: str, screen: Screen) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a work under a name in the block; what it gives is called with what is done, and of all."""
    from wtdiag.trainers.loop.bars import Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=screen) as bars:
        task = bars.add_task(name, total=None)
        yield lambda count, of: bars.update(task, completed=count, total=of)


def tracked(steps: Sequence[int], name: str, screen: Screen) -> Iterator[int]:
    """Yield from ``steps`` and show the progress under a name."""
    from wtdiag.trainers.loop.bars import Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=screen) as bars:
        yield from bars.track(steps, description=name)
