"""The kinds of findings. A new kind is one new function in a file of this folder, which discovery enters."""

from wtdiag.diagnostics.findings.kinds.base import KINDS, Kind, Sighting
from wtdiag.probes.discovery import discover

discover(__name__, __path__)
KINDS.open()

__all__ = ["KINDS", "Kind", "Sighting"]
