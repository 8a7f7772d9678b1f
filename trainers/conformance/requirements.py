"""The table of checks, and the verdict of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wtdiag.probes.discovery import enter
from wtdiag.probes.errors import with_type

if TYPE_CHECKING:
    from wtdiag.trainers.conformance.subject import Subject

PASSED, FAILED, NOT_APPLICABLE = "passed", "FAILED", "not applicable"


class Violation(Exception):
    """A check found that a rule does not do what it has to; the message says what was seen."""


class Inapplicable(Exception):
    """A check has nothing to ask of a rule; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes
    ----------
    check, title : str
        Name of the check, and what it requires, as a sentence.
    outcome : str
        `PASSED`, `FAILED` or `NOT_APPLICABLE`.
    seen : str
        What was seen, as a sentence; may be empty if it passed.
    """

    check: str
    title: str
    outcome: str
    seen: str


@dataclass(frozen=True)
class Check:
    """One requirement on every rule; called with a subject, it returns its verdict.

    Attributes
    ----------
    name, title : str
        Its name, and what it requires, as a sentence.
    examine : callable
        Function of a subject that returns what was seen, or raises `Violation` or `Inapplicable`.
    """

    name: str
    title: str
    examine: Callable[[Subject], str]

    def __call__(self, subject: Subject) -> Verdict:
        """Return the verdict on a rule; whatever the rule's code raises is a failure."""
        try:
            outcome, seen = PASSED, self.examine(subject)
        except Inapplicable as reason:
            outcome, seen = NOT_APPLICABLE, str(reason)
        except Violation as violation:
            outcome, seen = FAILED, str(violation)
        except Exception as error:
            outcome, seen = FAILED, with_type(error)
        return Verdict(self.name, self.title, outcome, seen)


CHECKS: dict[str, Check] = {}


def check(title: str) -> Callable[[Callable[[Subject], str]], Callable[[Subject], str]]:
    """Enter a function in `CHECKS` under its name, with hyphens in place of underscores."""

    def register(examine: Callable[[Subject], str]) -> Callable[[Subject], str]:
        name = examine.__name__.replace("_", "-")
        enter(CHECKS, "check", name, Check(name, title, examine))
        return examine

    return register


def require(holds: bool, otherwise: str) -> None:
    """Raise a `Violation` with a message unless a condition holds."""
    if not holds:
        raise Violation(otherwise)
