"""The report on one run."""

from __future__ import annotations

from reports import sections
from reports.appendix import methods, settings
from reports.content import Report, Section, Text
from reports.facts import facts
from reports.sources import Source
from reports.summary import sentences, verdict


def single(source: Source) -> Report:
    """Build the report on one run, summary first."""
    run = facts(source)
    parts = (sections.training, sections.maps, sections.layers, sections.spectra, sections.error_signal)
    built = [part(source, run) for part in parts]
    summary = Section("Summary", tuple(Text(sentence) for sentence in sentences(run)))
    body = [section for section in built if section is not None]
    return Report(source.name, verdict(run), (summary, *body, settings(source), methods([source.analysis])))
