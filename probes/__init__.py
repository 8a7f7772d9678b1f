"""Measures of a layer, as pure functions on arrays, and the run directory that they read. Torch is never loaded.

- ``measure``: the description of a measure; ``registry``: what a probe is, and the table of all probes.
- ``measures``: the probes, one small file per idea. A new probe registers itself when its file is loaded.
- ``kernels``: the arithmetic that they share.
- ``records``: the run directory: its files, and how they are read and written.
- ``errors``: the error for input that cannot be used; ``discovery``: how registries find their entries; ``floor``: the
  size below which errors have no angle.
"""

from __future__ import annotations

from wtdiag.probes.discovery import discover
from wtdiag.probes.measure import Measure
from wtdiag.probes.registry import GIVEN, PROBES, Probe, Quantities, check_probes, declare, probe, shared

__all__ = ["GIVEN", "PROBES", "Measure", "Probe", "Quantities", "declare", "probe", "shared"]

discover(__name__, __path__)
check_probes()
PROBES.open()
