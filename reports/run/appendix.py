"""The appendix, which allows one to repeat a run and to check its numbers: settings, versions, command, methods."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.layout import measures
from wtdiag.probes.records.config import as_typed, command_options, settings_with_role
from wtdiag.reports.document.content import Block, Code, Section, Table, Term, Terms, Text
from wtdiag.reports.figures.style import capital, number, printable
from wtdiag.reports.run.sources import Source

_PLAIN = bool, int, float, str


def settings(source: Source) -> Section:
    """Build the section with every setting of a run, its seed and versions, and the command that repeats it."""
    config, command = source.config, repeat(source)
    blocks: list[Block] = [command] if command else []
    first: dict[str, Any] = {"name": source.name}
    first |= {key: config[key] for key in ("status", "git_commit", "wtdiag_version") if key in config}
    named = {"rule": config.get("rule"), "settings": source.settings, "versions": config.get("versions")}
    rows = [*_flatten(first), *(row for key, part in named.items() if part for row in _flatten({key: part}))]
    rows = [(name.removeprefix("settings."), value) for name, value in rows if value != "null"]
    said = "Settings, seeds and versions. A setting that is not listed follows from the rule, the model or the data."
    blocks.append(Table(said, ("setting", "value"), tuple(rows), labels=2))
    return Section("Settings", tuple(blocks))


def repeat(source: Source) -> Code | None:
    """Return the command that repeats a run with every setting, or that made it if it was not trained by wtdiag."""
    command = source.config.get("command")
    if not command:
        return None
    if (words := _all_settings(source)) is not None:
        return Code("The command that repeats this run, whatever the defaults of a later version:", _folded(words))
    text = shlex.join(map(str, command)) if isinstance(command, list) else str(command)
    return Code("The command that made this run:", text)


def _all_settings(source: Source) -> list[str] | None:
    """Return the words of ``wtdiag train`` with all settings and coefficients; None for a run of another loop."""
    rule, settings = source.config.get("rule"), source.settings
    if not isinstance(rule, dict) or not settings or not str(source.config["command"]).startswith("wtdiag train "):
        return None
    here = set(settings_with_role("location")) - {"data_dir"}
    kept = {name: value for name, value in settings.items() if name not in here and isinstance(value, _PLAIN)}
    coefficients = {name: value for name, value in rule.items() if name != "name" and isinstance(value, _PLAIN)}
    return ["wtdiag", "train", *command_options({**kept, "rule": source.rule, "coefficients": coefficients})]


def _folded(words: Sequence[str]) -> str:
    r"""Return a command on lines of at most 80 characters, which break before options only.

    Examples
    --------
    >>> print(_folded(["wtdiag", "train", "--rule", "x" * 40, "--data", "y" * 30]))
    wtdiag train --rule xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx \
      --data yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
    """
    lines, parts = [""], list[str]()
    for word in words:
        if word.startswith("-") or not parts:
            parts.append(shlex.quote(word))
        else:
            parts[-1] += f" {shlex.quote(word)}"
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > 77:
            lines[-1] += " \\"
            lines.append(f"  {part}")
        else:
            lines[-1] += f" {part}" if lines[-1] else part
    return "\n".join(lines)


def methods(analyses: Sequence[xr.Dataset], shown: Collection[str]) -> Section:
    """Define the measures that a report shows: equation, unit, null expectation, reference."""
    holders = {name: analysis for analysis in reversed(analyses) for name in measures(analysis)}
    order = [name for analysis in analyses for name in measures(analysis)]
    known = list(dict.fromkeys(order))
    terms = tuple(_term(holders[name], name) for name in known if name in shown)
    intro = (
        "W denotes a layer's forward weights, and B its feedback weights in the shape of W, as they carried the error. "
        "Values by chance are those for independent random weights or signals of the layer's own shape."
    )
    if rest := len(known) - len(terms):
        intro += (
            f" These are the measures that this report shows. The analysis holds {rest} more, which `wtdiag probes` "
            "lists and `wtdiag probes NAME` defines."
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
            yield (
                f"{prefix}{key}",
                as_typed(value) if isinstance(value, str | float) else json.dumps(value, ensure_ascii=False),
            )
