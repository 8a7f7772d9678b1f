"""How severe a finding is.

A detector in `kinds` says how severe the fault is that it saw: where its kind always breaks a run, it says so itself;
where it may hamper learning or not, it asks `of_hampered_learning` whether this network failed to learn, and where it
breaks most networks, it asks `unless_learned`. Then `no_more_than` bounds an effect by its cause. `diagnose` puts the
most severe findings first.
"""

from __future__ import annotations

import math

from wtdiag.diagnostics.analysis.view import View

SEVERITIES = ("high", "medium", "low", "none")
"""high: the run is broken or will be; medium: it costs accuracy; low: it is worth knowing; none: nothing is wrong."""


def of_hampered_learning(view: View) -> str:
    """Return "high" for a fault that hampers learning if the network did not learn and did not break, else "medium".

    It has the benefit of the doubt while the run goes on. A network that broke has a finding of its own.
    """
    if view.config.get("status") == "running" or view.learned_the_task or not math.isnan(view.collapse):
        return "medium"
    return "high"


def unless_learned(view: View) -> str:
    """Return "high" for a fault that breaks most runs, or "medium" if this one ended and its network learned."""
    ended = view.config.get("status") in ("finished", "pruned", "interrupted")
    return "medium" if ended and view.learned_the_task and math.isnan(view.collapse) else "high"


def no_more_than(severity: str, cause: str) -> str:
    """Return the milder of two severities: an effect is no more severe than its cause.

    Examples
    --------
    >>> no_more_than("high", "medium"), no_more_than("low", "high")
    ('medium', 'low')
    """
    return max(severity, cause, key=SEVERITIES.index)
