"""Registries: what modules enter under a name, those of wtdiag and those of installed packages."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import walk_packages
from threading import RLock
from typing import Any, TypeVar

from wtdiag.probes.errors import InputError, with_type

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """The entries of one sort by name: those of wtdiag, and those that installed packages add by entry points.

    A package names what it adds as an entry point ``module:object`` of the group; the decorator in that module enters
    it, as it does inside wtdiag. Packages are loaded when an entry is first asked for after `open`, so that they cost
    nothing before. What cannot be loaded is left out with a warning, and the rest is there.

    Parameters
    ----------
    what
        What one entry is, in messages.
    group
        Name of the group of entry points.
    decorator
        Name of the decorator that enters an object.
    source
        Function that returns the object that was decorated to make an entry.
    check
        Function that raises `InputError` if an entry of a package cannot be used.
    order
        Key by which the entries are sorted; by default they stay in the order in which they were entered.
    """

    def __init__(
        self,
        what: str,
        group: str,
        *,
        decorator: str,
        source: Callable[[T], object] = lambda entry: entry,
        check: Callable[[T], None] = lambda entry: None,
        order: Callable[[T], Any] | None = None,
    ) -> None:
        self._what, self._group, self._decorator = what, group, decorator
        self._source, self._check, self._order = source, check, order
        self.entered: dict[str, T] = {}
        self._due, self._loading, self._lock = False, False, RLock()

    def open(self) -> None:
        """Say that the entries of wtdiag are all there: the next reader finds those of installed packages too."""
        self._due = True

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        entries, order = self._all(), self._order
        return iter(list(entries) if order is None else sorted(entries, key=lambda name: order(entries[name])))

    def __len__(self) -> int:
        return len(self._all())

    def __setitem__(self, name: str, entry: T) -> None:
        self.entered[name] = entry

    def __delitem__(self, name: str) -> None:
        del self.entered[name]

    def __repr__(self) -> str:
        return repr(dict(self))

    def _all(self) -> dict[str, T]:
        if self._due:
            troubles: list[str] = []
            with self._lock:  # other threads wait; a package that reads the registry while it loads finds what is there
                if self._due and not self._loading:
                    self._loading = True
                    found = sorted(entry_points(group=self._group), key=lambda point: (_package(point), point.name))
                    troubles = [trouble for point in found for trouble in self._load(point)]
                    self._due = False
            for trouble in troubles:
                warnings.warn(trouble, stacklevel=3)
        return self.entered

    def _load(self, point: EntryPoint) -> Iterator[str]:
        """Let the module of an entry point enter what it defines; yield why that cannot be used."""
        before = set(self.entered)
        where = f"{self._group}: the entry point {point.name!r} of {_package(point)}"
        try:
            import_module(point.module)
        except (Exception, SystemExit) as error:
            for name in self.entered.keys() - before:  # the module is not there, so neither is what it had entered
                del self.entered[name]
            yield f"{where} is left out: {with_type(error)}"
            return
        try:
            found = point.load()
            names = [name for name, entry in self.entered.items() if self._source(entry) is found]
            if not names:
                raise InputError(f"{point.value} is not a {self._what}; expected one decorated with @{self._decorator}")
        except Exception as error:
            yield f"{where} is left out: {with_type(error)}"
            return
        for name in names:
            try:
                self._check(self.entered[name])
            except InputError as error:
                del self.entered[name]
                yield f"{where} is left out: {with_type(error)}"


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"


def discover(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, at any depth, so that each registers what it defines.

    Parameters
    ----------
    package, path
        The ``__name__`` and the ``__path__`` of the package.
    """
    for module in walk_packages(path, f"{package}."):
        import_module(module.name)


def entered(registry: Mapping[str, T]) -> Mapping[str, T]:
    """Return what a registry holds so far, without what packages could still add."""
    return registry.entered if isinstance(registry, Registry) else registry


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
    if name in entered(registry):
        raise InputError(f"{what}: the name {name!r} is taken; expected one of its own")
    registry[name] = entry
