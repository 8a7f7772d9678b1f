"""The kinds of findings. A new kind is one new function in a file here: discovery does the rest."""

from importlib import import_module
from pkgutil import iter_modules

from wtdiag.diagnostics.findings.kinds.base import KINDS, Kind, Sighting

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["KINDS", "Kind", "Sighting"]
