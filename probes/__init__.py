"""Measure: pure functions on arrays, lifted over xarray in one place. Never loads torch.

Importing the package imports each of its modules, so a probe registers by being there.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from wtdiag.probes.registry import PROBES, Probe, Quantities, probe, shared

__all__ = ["PROBES", "Probe", "Quantities", "probe", "shared"]

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
