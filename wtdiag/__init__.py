"""wtdiag: train, record and explain networks that learn without weight transport.

The public names, each loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For type checkers and editors; when the program runs, `__getattr__` loads them.
    from wtdiag.cli import main as main
    from wtdiag.diagnostics.findings.finding import Finding as Finding
    from wtdiag.probes import PROBES as PROBES
    from wtdiag.probes.errors import InputError as InputError
    from wtdiag.reports.figures import plot as plot
    from wtdiag.trainers.config.settings import Settings as Settings
    from wtdiag.trainers.layers.convert import summary as summary
    from wtdiag.trainers.layers.convert import transport_free as transport_free
    from wtdiag.trainers.loop.fit import Training as Training
    from wtdiag.trainers.observe.open_run import open_run as open_run
    from wtdiag.trainers.observe.tracer import error_signals as error_signals
    from wtdiag.trainers.record.recorder import Recorder as Recorder
    from wtdiag.trainers.rules import RULES as RULES
    from wtdiag.trainers.rules import Rule as Rule
    from wtdiag.trainers.rules import rule as rule
    from wtdiag.workflow import analyze as analyze
    from wtdiag.workflow import compare as compare
    from wtdiag.workflow import diagnose as diagnose
    from wtdiag.workflow import report as report

_PUBLIC = {
    "Finding": "wtdiag.diagnostics.findings.finding",
    "InputError": "wtdiag.probes.errors",
    "PROBES": "wtdiag.probes",
    "RULES": "wtdiag.trainers.rules",
    "Recorder": "wtdiag.trainers.record.recorder",
    "Rule": "wtdiag.trainers.rules",
    "Settings": "wtdiag.trainers.config.settings",
    "Training": "wtdiag.trainers.loop.fit",
    "analyze": "wtdiag.workflow",
    "compare": "wtdiag.workflow",
    "diagnose": "wtdiag.workflow",
    "error_signals": "wtdiag.trainers.observe.tracer",
    "main": "wtdiag.cli",
    "open_run": "wtdiag.trainers.observe.open_run",
    "plot": "wtdiag.reports.figures",
    "report": "wtdiag.workflow",
    "rule": "wtdiag.trainers.rules",
    "summary": "wtdiag.trainers.layers.convert",
    "transport_free": "wtdiag.trainers.layers.convert",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wtdiag' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
