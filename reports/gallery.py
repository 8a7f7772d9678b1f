"""The gallery: every figure of ``wtdiag.plot`` as its example draws it, by ``python -m wtdiag.reports.gallery``."""

from __future__ import annotations

import inspect
from doctest import DocTestParser
from pathlib import Path
from types import FunctionType

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wtdiag.reports.figures import plot
from wtdiag.reports.figures.style import context

FOLDER = Path(__file__).resolve().parents[1] / "docs"

_HEAD = """\
# Gallery

The figures of `wtdiag.plot`, each with the code that draws it. All take an analysis as `wtdiag.analyze` gives it, draw
on the `ax` they are given or on a new figure, and return matplotlib axes. Reports are made of the same figures.

The data are real: eight layers on digits, by `wtdiag train --rule ia --depth 8 --feedback-optimizer sgd` with
`--feedback-lr 1` (`ia.nc`) and 3 (`ia-diverged.nc`), and six layers by `fa`, `kp` and `sa`, three seeds each.
`python -m wtdiag.reports.gallery` draws this page anew.
"""


def figures() -> dict[str, FunctionType]:
    """Return the public figures by name."""
    return {name: getattr(plot, name) for name in plot.__all__}


def code(function: FunctionType) -> str:
    """Return the example in a function's docstring, as it would stand in a script."""
    return "".join(example.source for example in DocTestParser().get_examples(inspect.getdoc(function) or ""))


def text(function: FunctionType) -> str:
    """Return what a function's docstring says before its parameters."""
    return (inspect.getdoc(function) or "").split("\n\nParameters\n")[0]


def draw(function: FunctionType) -> Figure:
    """Run a function's example and return the figure of its ``ax``."""
    found: dict[str, object] = {}
    exec(code(function), found)  # our own docstring
    axes = found["ax"]
    assert isinstance(axes, Axes)
    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure


def page() -> str:
    """Return the gallery as Markdown."""
    entries = (
        f"## {name}\n\n{text(function)}\n\n```python\n{code(function)}```\n\n![{name}](gallery/{name}.png)\n"
        for name, function in figures().items()
    )
    return "\n".join([_HEAD, *entries])


def main() -> None:
    """Write the page and its pictures."""
    from matplotlib import pyplot

    for name, function in figures().items():
        with context():
            figure = draw(function)
            figure.savefig(FOLDER / "gallery" / f"{name}.png", dpi=120, facecolor="white")
        pyplot.close(figure)
    (FOLDER / "gallery.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
