"""Discovery of what modules register under a name: every module of a package is imported, and names are unique."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from importlib import import_module
from pkgutil import walk_packages
from typing import TypeVar

from wtdiag.probes.errors import InputError

T = TypeVar("T")


def discover(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, at any depth, so that each registers what it defines.

    Parameters
    ----------
    package, path
        The ``__name__`` and the ``__path__`` of the package.
    """
    for module in walk_packages(path, f"{package}."):
        import_module(module.name)


def enter(registry: MutableMapping[str, T], what: str, name: str, entry: T) -> None:
    """Enter something in a registry under a name that is not taken yet.

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
