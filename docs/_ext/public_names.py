"""The directive ``{api}``: every public name of wtdiag, as ``wtdiag/__init__.pyi`` lists them, with its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import wtdiag

ROOMS = {
    "workflow": "Analyse, compare, report",
    "trainers": "Train and record",
    "probes": "Measure and read",
    "diagnostics": "Explain",
    "reports": "Draw",
    "cli": "The command line",
}
PAGES = {"RULES": "[](rules.md)", "PROBES": "[](probes.md)", "plot": "[](gallery.md)"}
"""Names that stand for many things, and the page that shows them."""


class PublicNames(SphinxDirective):
    """All public names, by the room that defines them."""

    def run(self) -> list[nodes.Node]:
        """Return the names as sections."""
        text = "\n\n".join(_rooms())
        return self.parse_text_to_nodes(text, offset=self.content_offset, allow_section_headings=True)


def _rooms() -> Iterator[str]:
    places: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in sorted(wtdiag.__all__, key=str.lower):
        if not name.startswith("_"):
            places[_room(name, getattr(wtdiag, name))].append(name)
    for room, title in ROOMS.items():
        yield f"## {title}"
        for name in places[room]:
            yield f"### `wtdiag.{name}`"
            yield _described(name, getattr(wtdiag, name))


def _room(name: str, found: Any) -> str:
    module = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", "")
    if name in ("RULES", "PROBES"):
        module = {"RULES": "wtdiag.trainers", "PROBES": "wtdiag.probes"}[name]
    room = str(module).split(".")[1]
    return room if room in ROOMS else "workflow"  # what stands at the front door itself


def _described(name: str, found: Any) -> str:
    if name in PAGES:
        return f"{_line(found)} All of them: {PAGES[name]}."
    if inspect.isclass(found):
        return f"```{{eval-rst}}\n.. autoclass:: wtdiag.{name}\n   :members:\n```"
    return f"```{{eval-rst}}\n.. autofunction:: wtdiag.{name}\n```"


def _line(found: Any) -> str:
    return (inspect.getdoc(found) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("api", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
