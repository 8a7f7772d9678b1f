"""The table of all probes, which the files of `measures` enter when this module is loaded."""

from __future__ import annotations

from wtdiag.probes import measures
from wtdiag.probes.discovery import discover
from wtdiag.probes.measure import Measure
from wtdiag.probes.registry import GIVEN, PROBES, Probe, Quantities, check_probes, declare, probe, shared

__all__ = ["GIVEN", "PROBES", "Measure", "Probe", "Quantities", "declare", "probe", "shared"]

discover(measures.__name__, measures.__path__)
check_probes()
PROBES.open()
