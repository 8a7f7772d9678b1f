"""Measure: pure functions on arrays, lifted over xarray in one place. Never loads torch.

- ``measure``: what is known of a measure; ``registry``: what a probe is, and the table of all of them.
- ``measures``: the probes, one small file per idea. A new one registers by being there.
- ``kernels``: the arithmetic that they share.
- ``records``: the run directory, read and written in one place.
- ``errors``: the one error that input ends in; ``discovery``: how all registries find what is in them; ``floor``: when
  errors are too small to have an angle.
"""

from __future__ import annotations

from wtdiag.probes.discovery import discover
from wtdiag.probes.measure import Measure
from wtdiag.probes.registry import GIVEN, PROBES, Probe, Quantities, check_probes, declare, probe, shared

__all__ = ["GIVEN", "PROBES", "Measure", "Probe", "Quantities", "declare", "probe", "shared"]

discover(__name__, __path__)
check_probes()
