"""Objects that are given as ``module:name`` on the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from wtdiag.probes.errors import InputError, with_type
from wtdiag.trainers.rules import Rule
from wtdiag.trainers.rules import rule as of_registry
from wtdiag.trainers.rules.base import build, check_is_rule


def load(argument: str, reference: str) -> Any:
    """Return the object that ``module:name`` names; the module may lie in the working directory.

    Raises
    ------
    InputError
        If the module cannot be imported or has no such name.

    Examples
    --------
    >>> load("rule", "wtdiag.trainers.rules.base:RandomFeedback").__name__
    'RandomFeedback'
    >>> load("rule", "wtdiag.trainers.rules.base:Nothing")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: rule: wtdiag.trainers.rules.base has no 'Nothing'; expected module:name
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise InputError(f"{argument}: {reference!r:.200}: expected module:name")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{argument}: {module} cannot be imported ({with_type(error)}); expected module:name"
        ) from error
    finally:
        sys.path.remove(here)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{argument}: {module} has no {name!r}; expected module:name")
        found = getattr(found, part)
    return found


def rule_named(reference: str, coefficients: Mapping[str, Any]) -> Rule:
    """Return the rule of a name in ``RULES``, or of a class that ``module:Class`` names, with its coefficients.

    Raises
    ------
    InputError
        If there is no such rule, the class is not a rule, or the coefficients do not fit it.
    """
    if ":" not in reference:
        return of_registry(reference, **coefficients)
    kind = load("rule", reference)
    check_is_rule("rule", kind)
    return build(kind, coefficients)
