"""The registry of probes, and how they share what they have in common.

A *quantity* is a function whose parameters name what it is computed from: what the caller gives (``forward``,
``feedback``, error signals) or another quantity. `shared` declares one that several probes build on, `probe`
one that is a measure. `Quantities` computes each at most once, when it is first asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from wtdiag.probes.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Parameter:
    source: str  # the quantity that it stands for
    default: Any


@cache
def _parameters(function: Callable[..., Any], side: str) -> dict[str, _Parameter]:
    """Tell what each parameter stands for; ``spectrum``, of the side "forward", for `forward_spectrum`."""
    prefix = f"{side}_" if side else ""
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name: _Parameter(prefix + parameter.name, parameter.default) for parameter in parameters}


@dataclass(frozen=True)
class Probe:
    """A measure of one layer.

    Called with what it needs, as in ``PROBES["weight_angle"](forward=w, feedback=b)``, it gives a number, or
    one per mode if ``dims`` says so; NaN where the measure means nothing.

    Attributes
    ----------
    name, units, long_name, equation, reference : str
        For tables and axes; units as in netCDF, "1" for a pure number.
    dims : tuple of str
        Dims of the result: () or ("mode",).
    function : callable
        Computes it; the names of its parameters say from what.
    null : callable or None
        Gives mean and standard deviation of the measure under chance; parameters as for ``function``.
    slow : bool
        Whether it costs more than all others together; `diagnostics.analysis.analyze` then measures it only by name.
    side : str
        "forward" or "feedback" where one function measures either weight, "output" or "input" where it measures
        either side of the layer, else "".
    """

    name: str
    units: str
    long_name: str
    equation: str
    reference: str
    dims: tuple[str, ...]
    function: Callable[..., Any]
    null: Callable[..., tuple[Any, Any]] | None
    slow: bool = False
    side: str = ""

    @property
    def needs(self) -> frozenset[str]:
        """Names of what the caller has to give: weights, error signals."""
        return frozenset(_sources(self.function, self.side)) - PROBES.keys() - _SHARED.keys()

    @property
    def uses(self) -> frozenset[str]:
        """Names of everything that it is computed from, directly or not, but for options."""
        return frozenset(_sources(self.function, self.side))

    def __call__(self, **given: Any) -> Any:
        """Measure."""
        return Quantities(**given)[self.name]


PROBES: dict[str, Probe] = {}
_SHARED: dict[str, Callable[..., Any]] = {}


def shared(function: F) -> F:
    """Declare a quantity that several probes build on, under the function's name."""
    _SHARED[function.__name__] = function
    return function


def probe(
    *,
    units: str,
    long_name: str,
    equation: str,
    reference: str,
    null: Callable[..., tuple[Any, Any]] | None = None,
    dims: Sequence[str] = (),
    slow: bool = False,
    sides: Sequence[str] = ("",),
) -> Callable[[F], F]:
    """Register a measure under the function's name; `Probe` tells what the arguments are.

    With ``sides=("forward", "feedback")`` it becomes two probes: its name, its parameters and ``{side}`` in
    ``long_name`` then stand for that side's.

    Examples
    --------
    >>> from wtdiag.probes import PROBES
    >>> PROBES["forward_spectral_norm"].long_name
    'spectral norm of the forward weights'
    """

    def register(function: F) -> F:
        for side in sides:
            name = f"{side}_{function.__name__}" if side else function.__name__
            PROBES[name] = Probe(
                name=name,
                units=units,
                long_name=long_name.format(side=side),
                equation=equation,
                reference=reference,
                dims=tuple(dims),
                function=function,
                null=null,
                slow=slow,
                side=side,
            )
        return function

    return register


class Quantities:
    """All quantities of one layer, each computed at most once.

    Raises
    ------
    InputError
        When asked for a quantity that needs what was not given.

    Examples
    --------
    >>> import numpy as np
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
                raise InputError(f"{name}: is not given and no probe; given: {', '.join(self._known) or 'nothing'}")
        return self._known[name]

    def __contains__(self, name: str) -> bool:
        """Whether it is given, or can be computed from what is given."""
        if name in self._known:
            return True
        function, side = (PROBES[name].function, PROBES[name].side) if name in PROBES else (_SHARED.get(name), "")
        return function is not None and all(source in self for source in _required(function, side))

    def null(self, name: str) -> tuple[Any, Any] | None:
        """Mean and standard deviation of the probe ``name`` under chance, where it has a chance level."""
        probe = PROBES[name]
        return None if probe.null is None else self._call(probe.null, probe.side)

    def _call(self, function: Callable[..., Any], side: str) -> Any:
        arguments = {}
        for name, parameter in _parameters(function, side).items():
            optional = parameter.default is not inspect.Parameter.empty and parameter.source not in self
            arguments[name] = parameter.default if optional else self[parameter.source]
        return function(**arguments)


def _required(function: Callable[..., Any], side: str) -> list[str]:
    """Name what a function cannot do without; an optional quantity is computed where it can be."""
    parameters = _parameters(function, side).values()
    return [parameter.source for parameter in parameters if parameter.default is inspect.Parameter.empty]


def _sources(function: Callable[..., Any], side: str) -> Iterator[str]:
    for source in _required(function, side):
        yield source
        if source in PROBES:
            yield from _sources(PROBES[source].function, PROBES[source].side)
        elif source in _SHARED:
            yield from _sources(_SHARED[source], "")
