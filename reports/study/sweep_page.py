"""The page of a search: how much of it works, which parameters matter, and the map with its predicted boundaries."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import xarray as xr

from wtdiag.reports.document.content import Block, Number, Numbers, Report, Section, Table, Text
from wtdiag.reports.figures.style import capital
from wtdiag.reports.publish import FORMATS, publish
from wtdiag.reports.study.boundaries import maps
from wtdiag.reports.study.robustness_section import best, curve, ends, importance, space, verdict
from wtdiag.reports.study.shared import (
    Methods,
    counted,
    load,
    methods_of,
    settings_table,
    slug,
    tally,
    tidy,
    words,
)


def write(folder: str | os.PathLike[str], *, formats: Collection[str] = FORMATS, paper: str = "a4") -> list[Path]:
    """Write ``sweep.html`` and ``sweep.pdf`` into the folder of a sweep.

    Parameters
    ----------
    folder : path
        With ``results.nc``.
    formats : collection of {"html", "pdf"}
        Which to write.
    paper : {"a4", "letter"}
        What the PDF is set for.

    Returns
    -------
    list of Path
        The files written; earlier ones are replaced.

    Raises
    ------
    InputError
        If there are no results of a sweep, or the page cannot be written.

    Examples
    --------
    >>> write("runs/none")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: runs/none/results.nc: there are no results; ...
    """
    search = load(folder, "sweep")
    methods = methods_of(search)
    report = Report(
        title=search.attrs["title"] or f"Sweep {Path(folder).resolve().name}",
        verdict=verdict(search),
        sections=(*sections(search, methods), done(search)),
    )
    return publish(report, Path(folder), "sweep", formats, paper)


def sections(search: xr.Dataset, methods: Methods, name: str = "") -> tuple[Section, ...]:
    """Build what is said of a search; ``name`` tells it from others on a page."""
    head = f"Sweep {name}: " if name else ""
    tag = slug(name)
    blocks: list[Block] = [_numbers(search)]
    if name:
        blocks.insert(0, Text(verdict(search)))
    if found := curve(search, methods, tag):
        blocks.append(found)
    blocks += [best(search, methods), ends(search, methods)]
    parts = [Section(_titled(head, "robustness"), tuple(blocks))]
    if found := importance(search, methods, tag):
        parts.append(Section(_titled(head, "importance of parameters"), (found,)))
    if drawn := tuple(maps(search, methods, tag)):
        parts.append(Section(_titled(head, "measured and predicted stability"), drawn))
    return tuple(parts)


def _titled(head: str, what: str) -> str:
    return f"{head}{what}" if head else capital(what)


def done(search: xr.Dataset) -> Section:
    """Say what was searched, and how."""
    rows = tuple((words(name), _range(each)) for name, each in space(search).items())
    return Section(
        "What was done",
        (
            Text(
                f"Sampler {search.attrs['sampler']}; up to {counted(search.sizes['trial'], 'trial')} for each "
                f"method. Accuracy is on held-out training examples, at the last step; no test set was touched."
            ),
            Table("What was searched.", ("parameter", "values"), rows, labels=2),
            settings_table(search),
        ),
    )


def _numbers(search: xr.Dataset) -> Numbers:
    ends = tally(search["status"])
    total = sum(ends.values())
    return Numbers(tuple(Number(end, str(count), f"of {total} trials") for end, count in ends.items()))


def _range(given: dict[str, Any]) -> str:
    if isinstance(given.get("choices"), list):
        return ", ".join(map(tidy, given["choices"]))
    scale = "logarithmic" if given.get("log") else "linear"
    return f"{tidy(given.get('low'))} to {tidy(given.get('high'))}, {scale}"
