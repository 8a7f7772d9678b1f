"""A report as one self-contained HTML page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined

from reports.content import Report
from reports.style import BAND, GRID, INK, MISSING, MUTED

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_THEMED = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band", MISSING: "missing"}
_THEMED_STYLE = re.compile("|".join(_THEMED))

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def render(report: Report) -> str:
    """Render a report as HTML that asks the network for nothing.

    Text is escaped by the template engine; the figures are inlined with the theme's colours as CSS variables.
    """
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["of"] = lambda block, kind: type(block).__name__ == kind
    environment.filters["inline"] = inline
    return environment.get_template("report.html.j2").render(report=report)


def inline(svg: str, prefix: str) -> str:
    """Prepare an SVG document to stand inside a page: unique ids, themed colours, no metadata."""
    root = ElementTree.fromstring(svg)
    for child in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    for element in root.iter():
        name = element.get("id")
        if name in used:
            element.set("id", f"{prefix}-{name}")
        elif name is not None:
            del element.attrib["id"]
        for key, value in element.attrib.items():
            if key == "style":
                value = _THEMED_STYLE.sub(lambda match: f"var(--{_THEMED[match[0]]})", value)
            if key == f"{{{_XLINK}}}href" and value.startswith("#"):
                value = f"#{prefix}-{value[1:]}"
            element.set(key, value.replace("url(#", f"url(#{prefix}-"))
    width, height = (float(root.get(side, "0").removesuffix("pt")) for side in ("width", "height"))
    for side in ("width", "height"):
        root.attrib.pop(side, None)
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")
