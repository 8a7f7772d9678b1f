"""The gallery of all figures of ``wtdiag.plot``, drawn by their examples: ``python -m wtdiag.reports.gallery``."""

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

The figures of `wtdiag.plot`, each with the code that draws it. All of them take an analysis that `wtdiag.analyze`
returns, draw on the given `ax` or on a new figure, and return matplotlib axes. Reports consist of the same figures.

The data come from real runs on digits: networks of eight layers, trained by
`wtdiag train --rule ia --depth 8 --feedback-optimizer sgd` with `--feedback-lr 1` (`ia.nc`) and with `--feedback-lr 3`
(`ia-diverged.nc`), and networks of six layers, trained by `fa`, `kp` and `sa` with three seeds each.
`python -m wtdiag.reports.gallery` draws this page again.
"""


def figures() -> dict[str, FunctionType]:
    """Return the public figure functions by name."""
    return {name: getattr(plot, name) for name in plot.__all__}


def code(function: FunctionType) -> str:
    """Return the example in a function's docstring, as it would be written in a script."""
    return "".join(example.source for example in DocTestParser().get_examples(inspect.getdoc(function) or ""))


def text(function: FunctionType) -> str:
    """Return the part of a function's docstring before its parameters."""
    return (inspect.getdoc(function) or "").split("\n\nParameters\n")[0]


def draw(function: FunctionType) -> Figure:
    """Run a function's example and return the figure of its ``ax``."""
    variables: dict[str, object] = {}
    exec(code(function), variables)  # code from wtdiag's own docstring
    axes = variables["ax"]
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
