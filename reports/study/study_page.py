"""The page of a study: the claims and their verdicts first, then the evidence for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.diagnostics.claims import read_claims
from wtdiag.diagnostics.comparison.results import DECIDED, RESULTS, STUDY
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import read_json
from wtdiag.reports.document.content import Block, Code, Number, Numbers, Report, Section, Table, Text
from wtdiag.reports.figures.style import printable
from wtdiag.reports.study import claims_section, robustness_section, sweep_page, transfer_page
from wtdiag.reports.study.factors import over_factors, ranking
from wtdiag.reports.study.levels import factors, levels_table, prepared, tuned_table
from wtdiag.reports.study.shared import (
    Methods,
    load,
    methods_of,
    not_done,
    settings_table,
    tally,
    words,
)
from wtdiag.reports.study.training_section import training


def report(folder: Path) -> Report:
    """Build the report of a study from the files in its folder.

    It holds ``results.nc`` or the results of sweeps and transfers, and may hold ``claims.json`` and ``study.json``.

    Raises
    ------
    InputError
        If there are no results, or a file is not valid.

    Examples
    --------
    >>> report(Path("runs/none"))
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: runs/none: holds no results; expected results.nc or those of sweeps or transfers
    """
    grid = prepared(load(folder, "grid")) if (folder / RESULTS).exists() else None
    sweeps = _parts(folder, "sweep")
    transfers = _parts(folder, "transfer")
    every = [*([grid] if grid is not None else []), *sweeps.values(), *transfers.values()]
    if not every:
        raise InputError(f"{folder}: holds no results; expected {RESULTS} or those of sweeps or transfers")
    plan = _plan(folder / STUDY)
    methods = methods_of(*every)
    decided = read_claims(folder / DECIDED) if (folder / DECIDED).exists() else ()
    body: list[Section] = []
    if grid is not None:
        body += _grid(folder, grid, methods)
    for name, each in sweeps.items():
        body += sweep_page.sections(each, methods, name)
    for name, each in transfers.items():
        body += transfer_page.sections(each, methods, name)
    if grid is not None:
        body += not_done(grid)
    for name, each in transfers.items():
        body += not_done(each, name)
    said = [text for text in (claims_section.said(decided), ranking(grid) if grid is not None else "") if text]
    about = [Text(printable(plan["about"]))] if isinstance(plan.get("about"), str) and plan["about"] else []
    tuned = (folder / "tuning").exists()
    summary = Section("Result", (*about, _numbers(every, tuned=tuned), *claims_section.blocks(decided)))
    return Report(
        title=printable(str(plan.get("title") or every[0].attrs["title"] or folder.resolve().name)),
        verdict=" ".join(said) or _first_said(sweeps, transfers),
        sections=(summary, *body, *claims_section.decisions(decided), _done(plan, every[0])),
    )


def _parts(folder: Path, kind: str) -> dict[str, xr.Dataset]:
    """Read the results of all sweeps or all transfers of a study, by printable name."""
    places = sorted(folder.glob(f"{kind}s/*/{RESULTS}"))
    return {printable(path.parent.name): load(path.parent, kind) for path in places}


def _plan(path: Path) -> Mapping[str, Any]:
    """Read the record of the study; it is empty if there is none."""
    return read_json(path) if path.exists() else {}


def _grid(folder: Path, grid: xr.Dataset, methods: Methods) -> tuple[Section, ...]:
    """Build the sections on the study's own cells."""
    tuned = tuned_table(grid, methods)
    drawn = tuple(over_factors(grid, methods))
    title = f"Over {listed(list(map(words, factors(grid))))}" if factors(grid) else "Methods compared"
    return (
        *((Section(title, drawn),) if drawn else ()),
        *training(folder, grid, methods),
        Section("All levels", (levels_table(grid, methods), *([tuned] if tuned else []))),
    )


def _numbers(every: list[xr.Dataset], *, tuned: bool) -> Numbers:
    """Count how all trainings but those of the tuning ended, and add up their time."""
    counts: dict[str, int] = {}
    for results in every:
        for end, count in tally(results["status"]).items():
            counts[end] = counts.get(end, 0) + count
    seconds = float(sum(np.nansum(results["seconds"]) for results in every))
    total = sum(counts.values())
    but = ", without tuning" if tuned else ""
    numbers = [Number(end, str(count), f"of {total} cells{but}") for end, count in counts.items()]
    return Numbers((*numbers, Number("training time", duration(seconds), f"of all cells together{but}")))


def duration(seconds: float) -> str:
    """Return a time as text.

    Examples
    --------
    >>> duration(12.3), duration(754), duration(9000)
    ('12 s', '12.6 min', '2.5 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _first_said(sweeps: Mapping[str, xr.Dataset], transfers: Mapping[str, xr.Dataset]) -> str:
    for results in sweeps.values():
        return robustness_section.verdict(results)
    for results in transfers.values():
        return transfer_page.verdict(results)
    return ""


def _done(plan: Mapping[str, Any], results: xr.Dataset) -> Section:
    """Build the section on how the study was done: command, study file, settings and versions."""
    blocks: list[Block] = []
    for key, label in (("command", "The command that made this study:"), ("file", "The study file:")):
        if isinstance(plan.get(key), str) and plan[key]:
            text = "\n".join(printable(line) for line in plan[key].splitlines())
            blocks.append(Code(label, text))
    blocks.append(settings_table(results))
    versions = plan.get("versions")
    rows = [("wtdiag", plan.get("wtdiag_version")), ("git commit", plan.get("git_commit"))]
    rows += list(versions.items()) if isinstance(versions, dict) else []
    shown = tuple((printable(str(name)), printable(str(value))) for name, value in rows if value)
    if shown:
        blocks.append(Table("Versions.", ("component", "version"), shown, labels=2))
    return Section("How it was done", tuple(blocks))
