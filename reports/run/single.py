"""The report on one run."""

from __future__ import annotations

import dataclasses

from wtdiag.diagnostics.findings.headline import headline, worst_severity
from wtdiag.reports.document.content import Block, Figure, Report, Section, Text
from wtdiag.reports.run import sections
from wtdiag.reports.run.appendix import methods, settings
from wtdiag.reports.run.checks_section import owed, robustness
from wtdiag.reports.run.error_section import error_signal
from wtdiag.reports.run.facts import facts
from wtdiag.reports.run.findings_section import entries, verdict
from wtdiag.reports.run.sources import NO_FINDINGS, UNDIAGNOSED, Source
from wtdiag.reports.run.stability_section import stability
from wtdiag.reports.run.summary import alone, glance, sentences, symbols, title

_PARTS = (
    sections.training, sections.maps, sections.layers, stability, error_signal, sections.spectra, owed, robustness,
)  # fmt: skip


def single(source: Source) -> Report:
    """Build the report on one run: the findings first, then the figures that show them."""
    run = facts(source)
    named, source = source, dataclasses.replace(source, name="this run")
    body = [section for part in _PARTS if (section := part(source, run)) is not None]
    figures = [block for section in body for block in section.blocks if isinstance(block, Figure)]
    result, findings = verdict(source, run), tuple[Block, ...]()
    if source.findings:
        findings = (entries(source.findings, figures, source.analysis, source.path),)
    else:
        result = f"{UNDIAGNOSED}: {NO_FINDINGS} {result}"
    texts = tuple(Text(said) for said in (*sentences(run), alone(source), *_shown(source)) if said)
    summary = Section("Summary", (glance(run), *findings, Text(symbols(source)), *texts))
    shown = [name for figure in figures for name in figure.measures]
    return Report(
        title=title(named, run),
        verdict=result,
        sections=(summary, *body, settings(named), methods([source.analysis], shown)),
        health=worst_severity(source.findings),
        headline=headline(source.findings or None, source.accuracy, source.config),
    )


def _shown(source: Source) -> list[str]:
    """State how many of a long run's snapshots the report shows."""
    shown = source.analysis.sizes["step"]
    if shown == source.snapshots:
        return []
    return [f"This report shows {shown} of {source.snapshots} snapshots, spread evenly; analysis.nc holds all."]
