"""Measure: pure functions on arrays, lifted over xarray in one place. Never loads torch.

- ``registry``: what a probe is, and the table of all of them.
- ``measures``: the probes, one small file per idea. A new one registers by being there.
- ``kernels``: the arithmetic that they share.
- ``records``: the run directory, read and written in one place.
- ``errors``: the one error that input ends in.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages

from wtdiag.probes.registry import PROBES, Probe, Quantities, probe, shared

__all__ = ["PROBES", "Probe", "Quantities", "probe", "shared"]

for _module in walk_packages(__path__, f"{__name__}."):
    import_module(_module.name)
