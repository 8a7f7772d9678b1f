"""How things become known by name: every module of a package is imported, and no name is taken twice."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from importlib import import_module
from pkgutil import walk_packages
from typing import TypeVar

from wtdiag.probes.errors import InputError

T = TypeVar("T")


def discover(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, however deep, so that what registers by being there is there.

    Parameters
    ----------
    package, path
        Its ``__name__`` and ``__path__``.
    """
    for module in walk_packages(path, f"{package}."):
        import_module(module.name)


def enter(registry: MutableMapping[str, T], what: str, name: str, entry: T) -> None:
    """Enter something in a registry under a name that is free.

    Raises
    ------
    InputError
        If the name is taken.

    Examples
    --------
    >>> rules = {}
    >>> enter(rules, "rule", "fa", 1)
    >>> enter(rules, "rule", "fa", 2)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: rule: the name 'fa' is taken; expected one of its own
    """
    if name in registry:
        raise InputError(f"{what}: the name {name!r} is taken; expected one of its own")
    registry[name] = entry
