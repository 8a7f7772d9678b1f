"""A report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from importlib import resources
from typing import Any
from xml.etree import ElementTree

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import Colormap, to_hex
from numpy.typing import NDArray
from PIL import Image

from wtdiag.reports.document.content import Block, Figure, Report, Subjects, Table, code_in
from wtdiag.reports.document.interaction import SUBJECT, Arrays, charts
from wtdiag.reports.figures.style import BAND, GRID, INK, MISSING, MUTED, ON_DARK

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_HREF = f"{{{_XLINK}}}href"
_THEMED = {INK: "ink", MUTED: "muted", GRID: "grid", BAND: "band", MISSING: "missing"}
_THEMED_STYLE = re.compile("|".join(_THEMED))
_FINE = re.compile(r"(\.\d\d)\d+")  # a hundredth of a point is finer than any screen shows
_GENERATED = re.compile(r"_\d+$|^(?:image|m|p)[0-9a-f]{8,}$")  # ids that matplotlib generates

ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def render(report: Report) -> str:
    """Render a report as HTML that requests nothing from the network.

    The template engine escapes all text; the figures are inlined with the theme's colours as CSS variables. The page
    is complete without its script, which is the only one that its content security policy allows.
    """
    return page("report.html.j2", "report.js", report=report, data=_data(report))


def page(template: str, script: str, **content: Any) -> str:
    """Return a page from a template that is given its script, and the digest by which its policy allows that alone."""
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = inline
    environment.filters["marked"] = marked
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    source = resources.files(__package__).joinpath("templates", script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment.get_template(template).render(script=source, digest=digest, **content)


def _data(report: Report) -> dict[str, Any]:
    """Collect the data of the interactive charts: the subjects, and the charts of each figure by its name."""
    blocks: list[Block] = [block for section in report.sections for block in section.blocks]
    arrays = Arrays()
    subjects: dict[str, Subjects] = {}
    figures = {}
    for block in blocks:
        if isinstance(block, Figure | Table) and block.subjects:
            subjects[block.subjects.name] = block.subjects
        if isinstance(block, Figure):
            assert block.svgs  # drawing the figure settles its layout
            about = block.subjects.name if block.subjects else None
            figures[block.name] = {"subjects": about, "charts": charts(block, arrays)}
    return {
        "subjects": {name: vars(each) for name, each in subjects.items()},
        "figures": figures,
        "arrays": arrays.lists,
        "theme": {f"--{name}": color for color, name in _THEMED.items()},
    }


def marked(text: str) -> Markup:
    """Return a text as HTML in which commands and options are set as code, which no line breaks.

    Examples
    --------
    >>> marked("`wtdiag analyze` takes --against, a < b")
    Markup('<code>wtdiag analyze</code> takes <code>--against</code>, a &lt; b')
    """
    parts = code_in(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if code else part for part, code in parts)


def inline(svg: str, prefix: str, colors: Colormap | None = None) -> str:
    """Prepare an SVG document for embedding in a page: unique ids, themed colours, no metadata.

    A map in the given ``colors`` is there twice, the second time in their counterparts for a dark page. An element that
    is marked as belonging to a layer or run keeps its index as ``data-subject``; other ids are kept as ``data-id`` or,
    if the document refers to them, made unique.
    """
    root = ElementTree.fromstring(svg)
    for child in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(child)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"{prefix}-{name}")
        elif name is not None and (subject := SUBJECT.fullmatch(name)):
            element.set("data-subject", subject[1])
        elif name is not None and not _GENERATED.search(name):
            element.set("data-id", name)
        for key, value in element.attrib.items():
            if key in ("d", "x", "y"):
                value = _FINE.sub(r"\1", value)
            if key == "style":
                value = _THEMED_STYLE.sub(lambda match: f"var(--{_THEMED[match[0]]})", value)
            if key == _HREF and value.startswith("#"):
                value = f"#{prefix}-{value[1:]}"
            element.set(key, value.replace("url(#", f"url(#{prefix}-"))
    if colors is not None:
        _double(root, colors)
    width, height = (float(root.get(side, "0").removesuffix("pt")) for side in ("width", "height"))
    for side in ("width", "height"):
        root.attrib.pop(side, None)
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    root.set("aria-hidden", "true")
    return ElementTree.tostring(root, encoding="unicode")


def _double(root: ElementTree.Element, colors: Colormap) -> None:
    """Put a copy in the colours for a dark page after every image, and after what has the colour of an end of them."""
    light, dark = (each(np.arange(each.N), bytes=True)[:, :3] for each in (colors, ON_DARK[colors.name]))
    fills = {f"fill: {to_hex(light[end] / 255)}": f"fill: {to_hex(dark[end] / 255)}" for end in (0, -1)}
    for parent in list(root.iter()):
        for place, element in reversed(list(enumerate(parent))):
            style = element.get("style", "")
            other = ElementTree.Element(element.tag, dict(element.attrib))
            if element.tag == f"{{{_SVG}}}image":
                other.set(_HREF, _recolored(element.get(_HREF, ""), light, dark))
            elif style in fills:
                other.set("style", fills[style])
            else:
                continue
            element.set("class", "on-light")
            other.set("class", "on-dark")
            parent.insert(place + 1, other)


def _recolored(address: str, light: NDArray[np.uint8], dark: NDArray[np.uint8]) -> str:
    """Return the address of an image with the colours of a dark page in place of the nearest light ones."""
    kind, _, data = address.partition(",")
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    whole = pixels[..., :3] @ np.array([1 << 16, 1 << 8, 1])  # colours as numbers, which sort fast
    numbers, place = np.unique(whole, return_inverse=True)
    found = numbers[:, None] >> np.array([16, 8, 0]) & 255
    nearest = np.abs(found[:, None] - light[None]).sum(axis=2).argmin(axis=1)
    pixels[..., :3] = dark[nearest][place].reshape(pixels[..., :3].shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return f"{kind},{base64.b64encode(buffer.getvalue()).decode()}"
