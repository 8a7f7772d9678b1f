"""The registry of probes, and the quantities that they share.

A *quantity* is a function whose parameters name its sources. A source is either given by the caller (``forward``,
``feedback``, error signals; see `declare`) or another quantity. `shared` declares a quantity that several probes build
on, and `probe` one that is a measure. `Quantities` computes each at most once, when it is first needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from wtdiag.probes.discovery import Registry, enter, entered
from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.measure import Measure

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Parameter:
    source: str  # name of the quantity that is passed as this parameter
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@cache
def _parameters(function: Callable[..., Any], side: str) -> dict[str, _Parameter]:
    """Return the source of each parameter: on the side "forward", that of ``spectrum`` is `forward_spectrum`."""
    prefix = f"{side}_" if side else ""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: _Parameter(prefix + parameter.name, parameter.default) for parameter in parameters}


@dataclass(frozen=True, kw_only=True)
class Probe(Measure):
    """A measure of one layer.

    Called with what it needs, as in ``PROBES["weight_angle"](forward=w, feedback=b)``, it returns a number, or one
    number per mode if ``dims`` says so. The number is NaN where the measure has no meaning.

    Attributes
    ----------
    dims : tuple of str
        Dims of the result: () or ("mode",).
    function : callable
        Function that computes it; the names of its parameters are its sources.
    null : callable or None
        Function that returns the mean and standard deviation of the measure under chance, from such parameters.
    slow : bool
        Whether it costs more than all others together; `diagnostics.analysis.analyze` then measures it only if named.
    side : str
        "forward" or "feedback" if one function measures both weights, "output" or "input" if it measures both sides
        of the layer, else "".
    """

    function: Callable[..., Any]
    null: Callable[..., tuple[Any, Any]] | None = None
    dims: tuple[str, ...] = ()
    slow: bool = False
    side: str = ""

    @property
    def needs(self) -> frozenset[str]:
        """Names of the sources that the caller has to give, such as weights and error signals."""
        return self.uses & GIVEN.keys()

    @property
    def room(self) -> str:
        """Room of `probes.measures` that defines it, such as "weights"; empty for a probe from elsewhere."""
        package, _, rest = self.function.__module__.partition(".measures.")
        return rest.partition(".")[0] if package == "wtdiag.probes" else ""

    @property
    def uses(self) -> frozenset[str]:
        """Names of all its required sources, direct and indirect."""
        return frozenset(_sources(self.function, self.side))

    def check(self) -> None:
        """Require that each parameter of the measure and of its chance level is a quantity or can be given.

        Raises
        ------
        InputError
            If the name of a parameter, optional or not, is unknown.
        """
        for function in (self.function, self.null):
            for parameter in _parameters(function, self.side).values() if function else ():
                check_one_of(f"{self.name}: parameter", parameter.source, _names())

    def __call__(self, **given: Any) -> Any:
        """Return the measure, computed from what is given."""
        return Quantities(**given)[self.name]


PROBES: Registry[Probe] = Registry(
    "probe", "wtdiag.probes", decorator="probe", source=lambda probe: probe.function, check=lambda probe: probe.check()
)
GIVEN: dict[str, str] = {}
"""Names of what a caller can give, each with its meaning."""
_SHARED: dict[str, Callable[..., Any]] = {}


def declare(**meanings: str) -> None:
    """Declare names that a caller can give, each with its meaning.

    Examples
    --------
    >>> from wtdiag.probes import GIVEN
    >>> GIVEN["forward_lr"]
    'learning rate of W in the step'
    """
    for name, meaning in meanings.items():
        _enter(GIVEN, name, meaning)


def shared(function: F) -> F:
    """Register a quantity that several probes build on, under the function's name."""
    _enter(_SHARED, function.__name__, function)
    return function


def probe(
    *,
    null: Callable[..., tuple[Any, Any]] | None = None,
    dims: Sequence[str] = (),
    slow: bool = False,
    sides: Sequence[str] = ("",),
    **known: Any,
) -> Callable[[F], F]:
    """Register a measure under the function's name; the arguments are the attributes of `Probe` and `Measure`.

    With ``sides=("forward", "feedback")`` it becomes two probes. Each has its side in front of its name and of the
    names of its sources, and in place of ``{side}`` in ``long_name`` and ``subject``.

    Raises
    ------
    InputError
        If the name is taken.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_spectral_norm"].long_name, PROBES["feedback_spectral_norm"].subject
    ('spectral norm of the forward weights', 'feedback')
    """

    def register(function: F) -> F:
        for side in sides:
            name = f"{side}_{function.__name__}" if side else function.__name__
            about = known | {key: known[key].format(side=side) for key in ("long_name", "subject") if key in known}
            own = Probe(name=name, function=function, null=null, dims=tuple(dims), slow=slow, side=side, **about)
            _enter(PROBES, name, own)
        return function

    return register


def check_probes() -> None:
    """Require that all sources of probes and shared quantities exist.

    Raises
    ------
    InputError
        If a parameter is neither a quantity nor something that can be given.
    """
    for each in entered(PROBES).values():
        each.check()
    for name, function in _SHARED.items():
        for parameter in _parameters(function, "").values():
            check_one_of(f"{name}: parameter", parameter.source, _names())


class Quantities:
    """All quantities of one layer, each computed at most once.

    Raises
    ------
    InputError
        When a quantity is requested whose sources were not given, or that does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> from wtdiag.probes import Quantities
    >>> layer = Quantities(forward=np.eye(2), feedback=2 * np.eye(2))
    >>> layer["norm_ratio"], layer["weight_angle"]
    (2.0, 0.0)
    """

    def __init__(self, **given: Any) -> None:
        self._known = given

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            if name in PROBES:
                self._known[name] = self._call(PROBES[name].function, PROBES[name].side)
            elif name in _SHARED:
                self._known[name] = self._call(_SHARED[name], "")
            else:
                given = ", ".join(self._known) or "nothing"
                raise InputError(f"{name}: is neither given nor the name of a probe; given: {given}")
        return self._known[name]

    def __contains__(self, name: str) -> bool:
        """Return whether a quantity is given or can be computed from what is given."""
        if name in self._known:
            return True
        function, side = (PROBES[name].function, PROBES[name].side) if name in PROBES else (_SHARED.get(name), "")
        return function is not None and all(source in self for source in _required(function, side))

    def null(self, name: str) -> tuple[Any, Any] | None:
        """Return mean and standard deviation of a probe under chance; None if it has no chance level."""
        probe = PROBES[name]
        return None if probe.null is None else self._call(probe.null, probe.side)

    def _call(self, function: Callable[..., Any], side: str) -> Any:
        arguments = {}
        for name, parameter in _parameters(function, side).items():
            optional = not parameter.required and parameter.source not in self
            if optional:  # `check_probes` has not seen a probe that was registered after it ran
                check_one_of(f"{function.__name__}: parameter", parameter.source, _names())
            arguments[name] = parameter.default if optional else self[parameter.source]
        return function(**arguments)


def _names() -> set[str]:
    """Return all names that a parameter may have."""
    return {*GIVEN, *_SHARED, *PROBES}


def _enter(registry: MutableMapping[str, Any], name: str, entry: Any) -> None:
    """Enter a quantity, whose name must be unique in all registries, because a parameter names just one quantity."""
    enter({**GIVEN, **_SHARED, **entered(PROBES)}, "quantity", name, entry)
    registry[name] = entry


def _required(function: Callable[..., Any], side: str) -> list[str]:
    """Return the sources without a default; an optional source is used only if it is available."""
    return [parameter.source for parameter in _parameters(function, side).values() if parameter.required]


def _sources(function: Callable[..., Any], side: str) -> Iterator[str]:
    for source in _required(function, side):
        yield source
        if source in PROBES:
            yield from _sources(PROBES[source].function, PROBES[source].side)
        elif source in _SHARED:
            yield from _sources(_SHARED[source], "")
