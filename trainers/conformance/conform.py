"""All checks of one rule."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from wtdiag.trainers.conformance import ecosystem, feedback_learning, transport
from wtdiag.trainers.conformance.requirements import CHECKS, Verdict
from wtdiag.trainers.conformance.subject import Subject
from wtdiag.trainers.rules.base import Rule

_ORDER = [module.__name__ for module in (transport, feedback_learning, ecosystem)]  # importing them enters their checks


def conform(rule: Rule) -> Iterator[Verdict]:
    """Yield the verdict of each check on a rule; the random numbers of the process stay as they are.

    Examples
    --------
    >>> from wtdiag.trainers.rules import rule
    >>> [verdict.check for verdict in conform(rule("fa")) if verdict.outcome == "FAILED"]
    []
    """
    for check in sorted(CHECKS.values(), key=lambda check: _ORDER.index(check.examine.__module__)):
        with torch.random.fork_rng(devices=[]):
            verdict = check(Subject(rule))
        yield verdict
