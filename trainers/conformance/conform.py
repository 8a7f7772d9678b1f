"""All checks of one rule."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from wtdiag.trainers.conformance import ecosystem, learning, transport  # noqa: F401  (they enter their checks)
from wtdiag.trainers.conformance.subject import Subject
from wtdiag.trainers.conformance.verdicts import CHECKS, Verdict
from wtdiag.trainers.rules.base import Rule


def conform(rule: Rule) -> Iterator[Verdict]:
    """Yield the verdict of each check on a rule; the random numbers of the process stay as they are.

    Examples
    --------
    >>> from wtdiag.trainers.rules import rule
    >>> [verdict.check for verdict in conform(rule("fa")) if verdict.outcome == "FAILED"]
    []
    """
    for check in CHECKS.values():
        with torch.random.fork_rng(devices=[]):
            verdict = check(Subject(rule))
        yield verdict
