"""One page over many runs: a row for each, sortable and filterable, with a link to its report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from wtdiag.diagnostics.analysis.accuracy import accuracy
from wtdiag.diagnostics.findings.finding import Finding, read_findings
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.config import rule_name
from wtdiag.probes.records.schema import FINDINGS, METRICS, Run, open_run, write_aside
from wtdiag.reports.document.html import page
from wtdiag.reports.figures.style import percent, printable

INDEX = "index.html"
HEADS = ("run", "accuracy", "rule", "model", "depth", "data", "seed", "status", "most severe finding", "steps")


@dataclass(frozen=True)
class Listed:
    """What the index says of a run: its cells, what they are sorted by, and the address of its report, if it has one.

    A number is sorted as such, and a text by its letters.
    """

    cells: tuple[str, ...]
    keys: tuple[float | str, ...]
    link: str
    severity: str


def write_index(runs: Sequence[str | os.PathLike[str]], folder: Path) -> Path:
    """Write ``index.html`` over some runs into a folder, and return its path. Snapshots and analyses are not read.

    Raises
    ------
    InputError
        If a directory is not a run, or the page cannot be written.
    """
    rows = [_row(open_run(run), folder) for run in runs]
    rows.sort(key=lambda row: -row.keys[1] if isinstance(row.keys[1], float) else 0)
    html = page("index.html.j2", "index.js", heads=HEADS, rows=rows, texts=_texts(rows))
    path = folder / INDEX
    with write_aside(path) as aside:
        aside.write_text(html, encoding="utf-8")
    return path


def _row(run: Run, folder: Path) -> Listed:
    metrics = run.metrics if (run.path / METRICS).exists() else pd.DataFrame()
    settings = run.config.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    here = accuracy(metrics, run.config)
    name = os.path.relpath(run.path.resolve(), folder.resolve())
    worst = _worst(run.path)
    steps = pd.to_numeric(metrics["step"], errors="coerce").max() if "step" in metrics else np.nan
    values: tuple[Any, ...] = (
        *(name, here.value, rule_name(run.config)),
        *(settings.get(each) for each in ("model", "depth", "data", "seed")),
        *(run.config.get("status"), "" if worst is None else worst.kind, float(steps)),
    )
    shown = [_shown(value, head) for value, head in zip(values, HEADS, strict=True)]
    keys = [_key(value) for value in values]
    report = run.path / "report.html"
    return Listed(
        cells=tuple(shown),
        keys=tuple(keys),
        link=quote(f"{name}/report.html") if report.is_file() else "",
        severity="" if worst is None else worst.severity,
    )


def _worst(path: Path) -> Finding | None:
    """Return the most severe finding of a run; None if it was not diagnosed, or its findings cannot be read."""
    try:
        found = read_findings(path / FINDINGS)
    except InputError:
        return None
    return min(found, key=lambda finding: SEVERITIES.index(finding.severity), default=None)


def _shown(value: Any, head: str) -> str:
    if value is None or value == "" or value != value:
        return "–"
    if head == "accuracy":
        return percent(value)
    if head == "steps":
        return f"{value:.0f}"
    return printable(str(value).replace("-", " ") if head == "most severe finding" else str(value))[:200]


def _key(value: Any) -> float | str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else printable(str(value))[:200].lower()
    return float(value) if np.isfinite(float(value)) else -1e308


def _texts(rows: Sequence[Listed]) -> dict[str, str]:
    reported = sum(bool(row.link) for row in rows)
    seeds = {row.cells[HEADS.index("seed")] for row in rows}
    one = " All of them have one seed." if len(seeds) == 1 and len(rows) > 1 and "–" not in seeds else ""
    return {
        "title": f"{len(rows)} run{'s' if len(rows) != 1 else ''}",
        "lead": f"{'All' if reported == len(rows) else reported} of {'them' if reported == len(rows) else len(rows)} "
        f"have a report, to which the name links. The accuracy is that of the last evaluation.{one}",
    }
