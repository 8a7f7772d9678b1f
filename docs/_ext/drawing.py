"""A network with its forward weights W and its feedback weights B, as SVG: ``python docs/_ext/drawing.py`` writes it.

The file is what a checkout shows. On the site it is part of the page, whose colours, light or dark, it then takes
(``_static/site.css``).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

FILE = Path(__file__).parents[1] / "pictures" / "network.svg"
STYLE = """
svg { font: 17px sans-serif; background: white; }
line { stroke-width: 3; } .unit { fill: none; stroke: #555; stroke-width: 2; }
.forward { fill: #1f5fa8; stroke: #1f5fa8; } .back { fill: #b3470a; stroke: #b3470a; }
text { stroke: none !important; } .quiet { fill: #555; font-size: 15px; }
"""
WIDTH, HEIGHT = 440, 500
LEVELS = {"x": 430, "h1": 310, "h2": 190, "y": 70}
"""Height of each row of units: the input is at the bottom."""
UNITS = {"x": 4, "h1": 5, "h2": 5, "y": 3}
FORWARD, MIDDLE, BACK = 128, 220, 312
"""Columns of the arrows upwards, the units, and the arrows downwards."""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """Return words at a place; ``kind`` is the class that colours them."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def arrow(x: float, start: float, end: float, kind: str) -> str:
    """Return a vertical arrow from one height to another."""
    tip = 9 if start < end else -9
    head = f"{x - 6},{end - tip} {x + 6},{end - tip} {x},{end}"
    line = f'<line x1="{x}" y1="{start}" x2="{x}" y2="{end - tip}" class="{kind}"/>'
    return f'{line}<polygon points="{head}" class="{kind}"/>'


def row(name: str) -> str:
    """Return a row of units as circles."""
    y, count = LEVELS[name], UNITS[name]
    places = (MIDDLE + 26 * (unit - (count - 1) / 2) for unit in range(count))
    return "".join(f'<circle cx="{x}" cy="{y}" r="9" class="unit"/>' for x in places)


def network(style: str = "") -> str:
    """Return the drawing: activity goes up through W on the left, errors come down through B on the right.

    Without a style its parts have classes only.
    """
    names = list(LEVELS)
    parts = [row(name) for name in names]
    for number, (below, above) in enumerate(pairwise(names), start=1):
        low, high, half = LEVELS[below], LEVELS[above], (LEVELS[below] + LEVELS[above]) / 2
        parts += [
            arrow(FORWARD, low, high, "forward"),
            text(FORWARD - 14, half + 6, _sub("W", number), "forward", "end"),
        ]
        if number == 1:
            parts.append(text(BACK, half + 6, "no error is needed here", "quiet"))
            continue
        parts += [arrow(BACK, high, low, "back"), text(BACK + 14, half + 6, _sub("B", number) + "ᵀ", "back", "start")]
    for name, label in {"x": "input x", "h1": "h₁", "h2": "h₂", "y": "output"}.items():
        parts.append(text(58, LEVELS[name] + 5, label, "quiet"))
    for name, label in {"y": "error δ₃", "h2": "δ₂", "h1": "δ₁"}.items():
        parts.append(text(388, LEVELS[name] + 5, label, "back"))
    parts += [
        text(FORWARD, 24, "activity goes up", "forward"),
        text(BACK, 24, "errors come down", "back"),
        text(MIDDLE, 480, "Backpropagation has Wᵀ where this network has Bᵀ.", "quiet"),
    ]
    label = "A network of three layers. Activity goes up through W1, W2 and W3, errors come down through B3 and B2."
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{label}">'
    return f"{head}{style and f'<style>{style}</style>'}{''.join(parts)}</svg>"


def _sub(letter: str, number: int) -> str:
    return f"{letter}{'₀₁₂₃'[number]}"


def inline(app: Sphinx, tree: nodes.document) -> None:
    """Put the drawing itself in the place of a reference to its file, and warn if the file is another one."""
    for image in tree.findall(nodes.image):
        if Path(image["uri"]).name == FILE.name:
            if FILE.read_text(encoding="utf-8") != network(STYLE):
                logging.getLogger(__name__).warning("%s is not what %s draws; call it", FILE, __file__)
            raw = nodes.raw("", f'<div class="network-drawing">{network()}</div>', format="html")
            image.replace_self(raw)


def setup(app: Sphinx) -> dict[str, bool]:
    """Let the drawing be part of each page that shows it."""
    app.connect("doctree-read", inline)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    FILE.write_text(network(STYLE), encoding="utf-8")
