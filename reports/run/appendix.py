"""The appendix, which allows one to repeat a run and to check its numbers: settings, versions, command, methods."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.layout import measures
from wtdiag.reports.document.content import Block, Code, Section, Table, Term, Terms, Text
from wtdiag.reports.figures.style import capital, number, printable
from wtdiag.reports.run.sources import Source


def settings(source: Source) -> Section:
    """Build the section with every setting of a run, its seed and versions, and the command that repeats it."""
    config, command = source.config, repeat(source)
    blocks: list[Block] = [command] if command else []
    first: dict[str, Any] = {"name": source.name}
    first |= {key: config[key] for key in ("status", "git_commit", "wtdiag_version") if key in config}
    named = {"rule": config.get("rule"), "settings": source.settings, "versions": config.get("versions")}
    rows = [*_flatten(first), *(row for key, part in named.items() if part for row in _flatten({key: part}))]
    rows = [(name.removeprefix("settings."), value) for name, value in rows]
    blocks.append(Table("Settings, seeds and versions.", ("setting", "value"), tuple(rows), labels=2))
    return Section("Settings", tuple(blocks))


def repeat(source: Source) -> Code | None:
    """Return the command that made a run, if it is recorded."""
    command = source.config.get("command")
    if not command:
        return None
    text = shlex.join(map(str, command)) if isinstance(command, list) else str(command)
    return Code("The command that made this run:", text)


def methods(analyses: Sequence[xr.Dataset]) -> Section:
    """Define every measure of the analyses: equation, unit, null expectation, reference."""
    holders = {name: analysis for analysis in reversed(analyses) for name in measures(analysis)}
    order = [name for analysis in analyses for name in measures(analysis)]
    terms = tuple(_term(holders[name], name) for name in dict.fromkeys(order))
    intro = (
        "W denotes a layer's forward weights, and B its feedback weights in the shape of W, as they carried the error. "
        "Values by chance are those for independent random weights or signals of the layer's own shape."
    )
    return Section("Methods", (Text(intro), Terms(terms)))


def _term(analysis: xr.Dataset, name: str) -> Term:
    attrs = analysis[name].attrs
    details = (
        ("measures", attrs.get("long_name")),
        ("equation", attrs.get("equation")),
        ("unit", attrs.get("units")),
        ("by chance", _chance(analysis, name)),
        ("reference", attrs.get("reference")),
    )
    shown = tuple((label, printable(str(text))) for label, text in details if text)
    return Term(capital(f"{name.replace('_', ' ')} ({name})"), shown)


def _chance(analysis: xr.Dataset, name: str) -> str:
    """Return the null expectation and its standard deviation, as ranges over layers and steps."""
    if f"{name}_null" not in analysis:
        return ""
    text = _range(analysis[f"{name}_null"])
    if text and f"{name}_null_sd" in analysis:
        text += f" (standard deviation {_range(analysis[f'{name}_null_sd'])}), by layer"
    return text


def _range(values: xr.DataArray) -> str:
    finite = values.values[np.isfinite(values.values)]
    ends = dict.fromkeys(number(float(end)) for end in (finite.min(), finite.max())) if finite.size else ()
    return " to ".join(ends)


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
