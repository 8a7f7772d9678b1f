"""Findings: sentences with their evidence, and the file that holds them in a run directory."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wtdiag.diagnostics.analysis.accuracy import Reference
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.card import card
from wtdiag.probes.records.config import Changes, DeclaredSettings
from wtdiag.probes.records.files import read_json, write_json
from wtdiag.probes.records.rows import from_row, to_row

_FORMAT = 3
_PRIOR = 0.5  # findings of format 1 have it as the confidence of a kind that was never measured


@dataclass(frozen=True)
class Evidence:
    """One number that a finding rests on.

    Attributes
    ----------
    measure : str
        A variable of the analysis, or a column of the metrics.
    value : float
        The measured value.
    threshold : float
        The value that it was compared with.
    relation : str
        ">" or "<": on which side of the threshold the value lies.
    units : str
        The units of both numbers.
    step : int or None
        The training step of the measurement.
    """

    measure: str
    value: float
    threshold: float
    relation: str
    units: str = "1"
    step: int | None = None


@dataclass(frozen=True)
class Finding:
    """One finding: what is wrong, where and when, how sure that is, why, and what to try.

    Attributes
    ----------
    kind : str
        Its name in `diagnostics.findings.kinds.KINDS`.
    layer : str or None
        The layer concerned; None for the whole network.
    first_step, last_step : int
        The first and the last step at which it was seen.
    severity : str
        One of `SEVERITIES`.
    confidence : float
        How likely it is to be right, from 0 to 1, judged by runs whose fault was known, NaN if that was not measured;
        see `diagnostics.findings.thresholds.confidence`.
    summary : str
        The finding as a sentence with its numbers.
    evidence : tuple of Evidence
        The numbers that triggered it, the most telling first.
    meaning, equation, reference : str
        What it means for learning, and the equation and the source that it rests on.
    advice : tuple of str
        What to try, the best first.
    changes : mapping
        The settings of ``wtdiag train`` that the first advice changes, with their new values; coefficients of the rule
        are a mapping of their own. Empty if there are none, as for runs of the user's own loop.
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
    advice: tuple[str, ...]
    equation: str
    reference: str
    changes: Changes = field(default_factory=dict)

    def _repr_html_(self) -> str:
        where = self.layer or "all layers"
        steps = f"step {self.first_step}" + (f" to {self.last_step}" if self.last_step != self.first_step else "")
        head = self.kind if self.severity == "none" else f"{self.severity}: {self.kind}"
        sure = "" if math.isnan(self.confidence) or self.severity == "none" else f"{100 * self.confidence:.0f} %"
        best, *others = self.advice or ("",)
        rows = [("found", self.summary), ("means", self.meaning), ("try", best), ("or", " Or: ".join(others))]
        return card(head, f"{where}, {steps}", [*rows, ("right in test runs", sure), ("source", self.reference)])


class FoundFaults(tuple[Finding, ...]):
    """Findings on one run, the most severe first; a notebook shows each of them."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "".join(finding._repr_html_() for finding in self)


def write_findings(
    findings: Iterable[Finding], path: str | os.PathLike[str], reference: Reference | None = None
) -> None:
    """Write findings, and the run that they hold theirs against, as JSON, atomically.

    Numbers that are not finite become null.

    Raises
    ------
    InputError
        If ``path`` cannot be written.
    """
    held = {} if reference is None else {"reference": to_row(reference)}
    write_json(Path(path), {"format": _FORMAT, "findings": [to_row(each) for each in findings], **held})


def read_findings(path: str | os.PathLike[str]) -> tuple[Finding, ...]:
    """Read the findings that `write_findings` wrote, and check every field, because the file may come from anyone.

    Raises
    ------
    InputError
        If the file is missing, is not JSON or has another format, or if a field has the wrong type.
    """
    content = read_json(Path(path))
    match content:
        case {"format": 1 | 2 | 3 as version, "findings": [*rows]}:
            found = tuple(_finding(row, f"{path}: finding {number}") for number, row in enumerate(rows, start=1))
            return tuple(map(_without_prior, found)) if version == 1 else found
    raise InputError(f"{path}: expected findings of format {_FORMAT}; `wtdiag analyze` writes them")


def read_reference(path: str | os.PathLike[str]) -> Reference | None:
    """Read the run that `write_findings` noted as the reference; None if there is none.

    Raises
    ------
    InputError
        As `read_findings` does.
    """
    content = read_json(Path(path))
    row = content.get("reference") if isinstance(content, dict) else None
    return None if row is None else from_row(Reference, row, f"{path}: reference")


def _without_prior(finding: Finding) -> Finding:
    return dataclasses.replace(finding, confidence=math.nan) if finding.confidence == _PRIOR else finding


def _finding(row: Any, source: str) -> Finding:
    match row:
        case {"evidence": [*numbers], **others}:
            evidence = tuple(from_row(Evidence, number, f"{source}: evidence") for number in numbers)
            changes = _changes(others.setdefault("changes", {}), f"{source}: changes")
            built = {"evidence": evidence, "advice": _advice(others.get("advice"), source), "changes": changes}
            finding = from_row(Finding, {"evidence": numbers, **others}, source, **built)
            if finding.severity in SEVERITIES:
                return finding
    raise InputError(f"{source}: expected evidence in a list and a severity of {', '.join(SEVERITIES)}")


def _advice(advice: Any, source: str) -> tuple[str, ...]:
    texts = [advice] if isinstance(advice, str) else advice
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{source}: advice is {advice!r:.60}; expected a list of texts")
    return tuple(filter(None, texts))


def _changes(changes: Any, source: str) -> Changes:
    """Return changed settings after a check: a command is built from them."""
    try:
        if not isinstance(changes, dict):
            raise InputError(f"expected settings by name, got {changes!r:.60}")
        for name in changes:
            check_one_of("setting", name, [field.name for field in dataclasses.fields(DeclaredSettings)])
        for name, value in DeclaredSettings(**changes).coefficients.items():
            if not name.isidentifier() or not isinstance(value, str | int | float):
                raise InputError(f"coefficients: expected names with numbers or words, got {name!r:.60}: {value!r:.60}")
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return changes
