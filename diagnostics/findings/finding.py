"""What a finding is: a sentence with its evidence, and how findings are kept in a run directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.files import read_json, write_json
from wtdiag.probes.records.rows import from_row, to_row

SEVERITIES = ("high", "medium", "low", "none")
"""high: the run is broken, or will be; medium: it costs accuracy; low: worth knowing; none: nothing is wrong."""

_FORMAT = 1


@dataclass(frozen=True)
class Evidence:
    """One number that a finding rests on.

    Attributes
    ----------
    measure : str
        A variable of the analysis, or a column of the metrics.
    value : float
        What was measured.
    threshold : float
        What it was held against.
    relation : str
        How they compare: ">" or "<".
    units : str
        Of both.
    step : int or None
        When it was measured.
    """

    measure: str
    value: float
    threshold: float
    relation: str
    units: str = "1"
    step: int | None = None


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, when, how sure, why, and what to try.

    Attributes
    ----------
    kind : str
        What it is, as in `diagnostics.findings.kinds.KINDS`.
    layer : str or None
        Where; None for the whole network.
    first_step, last_step : int
        When it was first and last seen.
    severity : str
        One of `SEVERITIES`.
    confidence : float
        From 0 to 1: how likely it is right, by how such findings did where the truth was known; see
        `diagnostics.findings.thresholds.confidence`.
    summary : str
        The finding as a sentence with its numbers.
    evidence : tuple of Evidence
        The numbers that triggered it, most telling first.
    meaning, advice, equation, reference : str
        What it means for learning, what to try, and what both rest on.
    """

    kind: str
    layer: str | None
    first_step: int
    last_step: int
    severity: str
    confidence: float
    summary: str
    evidence: tuple[Evidence, ...]
    meaning: str
    advice: str
    equation: str
    reference: str


def write_findings(findings: Iterable[Finding], path: str | os.PathLike[str]) -> None:
    """Write findings as JSON, atomically; numbers that are not finite become null.

    Raises
    ------
    InputError
        If ``path`` cannot be written.
    """
    write_json(Path(path), {"format": _FORMAT, "findings": [to_row(each) for each in findings]})


def read_findings(path: str | os.PathLike[str]) -> tuple[Finding, ...]:
    """Read what `write_findings` wrote; every field is checked, for the file may come from anyone.

    Raises
    ------
    InputError
        If the file is missing, not JSON, of another format, or a field is of the wrong kind.
    """
    content = read_json(Path(path))
    match content:
        case {"format": 1, "findings": [*rows]}:
            return tuple(_finding(row, f"{path}: finding {number}") for number, row in enumerate(rows, start=1))
    raise InputError(f"{path}: expected findings of format {_FORMAT}; `wtdiag analyze` writes them")


def _finding(row: Any, source: str) -> Finding:
    match row:
        case {"evidence": [*numbers]}:
            evidence = tuple(from_row(Evidence, number, f"{source}: evidence") for number in numbers)
            finding = from_row(Finding, row, source, evidence=evidence)
            if finding.severity in SEVERITIES:
                return finding
    raise InputError(f"{source}: expected evidence in a list and a severity of {', '.join(SEVERITIES)}")
