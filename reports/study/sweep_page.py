"""The page of a sweep: the share of settings that work, the parameters that matter, the map of stability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

from wtdiag.diagnostics.analysis.sentences import counted
from wtdiag.reports.document.content import Block, Number, Numbers, Report, Section, Table, Text
from wtdiag.reports.figures.style import capital, printable
from wtdiag.reports.study.boundaries import maps
from wtdiag.reports.study.robustness_section import best, curve, ends, importance, slices, space, verdict
from wtdiag.reports.study.shared import (
    Methods,
    load,
    made_by,
    methods_of,
    settings_table,
    slug,
    tally,
    tidy,
    words,
)

_SAMPLERS = {
    "tpe": "near those that did well (by a tree-structured Parzen estimator)",
    "random": "at random",
    "grid": "on a grid",
}


def report(folder: Path) -> Report:
    """Build the report of a sweep from the results in its folder.

    Raises
    ------
    InputError
        If there are no results of a sweep.

    Examples
    --------
    >>> report(Path("runs/none"))
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: runs/none/results.nc: there are no results; ...
    """
    search = load(folder, "sweep")
    methods = methods_of(search)
    return Report(
        title=search.attrs["title"] or f"Sweep {folder.resolve().name}",
        verdict=verdict(search),
        sections=(*sections(search, methods), done(search)),
    )


def sections(search: xr.Dataset, methods: Methods, name: str = "") -> tuple[Section, ...]:
    """Build the sections on a sweep; ``name`` tells it from others on the page."""
    head = f"Sweep “{name}”: " if name else ""
    tag = slug(name)
    blocks: list[Block] = [_numbers(search)]
    if name:
        blocks.insert(0, Text(verdict(search)))
    if robustness := curve(search, methods, tag):
        blocks.append(robustness)
    blocks += [best(search, methods), ends(search, methods)]
    parts = [Section(_titled(head, "robustness"), tuple(blocks))]
    if drawn := tuple(each for each in (slices(search, methods, tag), importance(search, methods, tag)) if each):
        parts.append(Section(_titled(head, "parameters"), drawn))
    if mapped := tuple(maps(search, methods, tag)):
        parts.append(Section(_titled(head, "measured and predicted stability"), mapped))
    return tuple(parts)


def _titled(head: str, what: str) -> str:
    return f"{head}{what}" if head else capital(what)


def done(search: xr.Dataset) -> Section:
    """Build the section on what was searched, and how."""
    rows = tuple((words(name), _range(each)) for name, each in space(search).items())
    return Section(
        "How it was done",
        (
            Text(
                f"Up to {counted(search.sizes['trial'], 'trial')} for each method, chosen "
                f"{_SAMPLERS.get(search.attrs['sampler'], 'by ' + printable(search.attrs['sampler']))}. Accuracy is "
                "measured on held-out training examples, at the last step; no test set was used."
            ),
            Table("The parameters searched.", ("parameter", "values"), rows, labels=2),
            settings_table(search),
            *made_by(search),
        ),
    )


def _numbers(search: xr.Dataset) -> Numbers:
    ends = tally(search["status"])
    total = sum(ends.values())
    return Numbers(tuple(Number(end, str(count), f"of {total} trials") for end, count in ends.items()))


def _range(searched: dict[str, Any]) -> str:
    if isinstance(searched.get("choices"), list):
        return ", ".join(map(tidy, searched["choices"]))
    scale = "logarithmic" if searched.get("log") else "linear"
    return f"{tidy(searched.get('low'))} to {tidy(searched.get('high'))}, {scale}"
