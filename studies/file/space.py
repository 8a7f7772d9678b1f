"""The space of a search: a range or a list of choices for each parameter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.config import settings_with_role
from wtdiag.trainers.rules import RULES

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Value = str | int | float | bool
SEARCHABLE = settings_with_role("architecture", "data", "training", "feedback")
"""Settings that may be searched: those that change what is learned, except those that a search sets itself."""
_SCALES = ("log", "linear")
_FORM = "NAME=log:LOW:HIGH, NAME=linear:LOW:HIGH or NAME=VALUE,VALUE,..."


@dataclass(frozen=True)
class Range:
    """The values that a parameter may take: all between two bounds, or a list of choices.

    Attributes
    ----------
    low, high : float
        Bounds, both included.
    log : bool
        Whether the logarithm of the value, instead of the value itself, is uniformly distributed.
    choices : tuple
        The values, in place of bounds.
    whole : bool
        Whether the values are the whole numbers between the bounds; `studies.file.methods.searched` sets this.

    Raises
    ------
    InputError
        If the bounds are not finite and increasing, or not positive on a logarithmic scale, or if there are fewer than
        two different choices.

    Examples
    --------
    >>> Range(0.01, 1.0, log=True).middle
    0.1
    >>> Range(1, 0)
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: expected low < high, got 1 and 0
    """

    low: float = math.nan
    high: float = math.nan
    log: bool = False
    choices: tuple[Value, ...] = ()
    whole: bool = False

    def __post_init__(self) -> None:
        if self.choices:
            if len(set(self.choices)) < max(2, len(self.choices)):
                raise InputError(f"expected two or more different choices, got {list(self.choices)!r}")
            return
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise InputError(f"expected two finite bounds, got {self.low:g} and {self.high:g}")
        if self.low >= self.high:
            raise InputError(f"expected low < high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise InputError(f"expected positive bounds for a logarithm, got {self.low:g} and {self.high:g}")

    @property
    def middle(self) -> Value:
        """The geometric mean of logarithmic bounds, the arithmetic mean of linear ones, or the middle choice."""
        if self.choices:
            return self.choices[len(self.choices) // 2]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return round(middle) if self.whole else middle

    @property
    def size(self) -> float:
        """Number of different values; infinite for a continuous range."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.whole else math.inf

    def points(self, count: int) -> list[Value]:
        """Return ``count`` values evenly spread from end to end: the middle if that is 1, all if there are fewer.

        Examples
        --------
        >>> Range(0.01, 1.0, log=True).points(3)
        [0.01, 0.1, 1.0]
        >>> Range(choices=(0, 0.5, 0.9)).points(9)
        [0, 0.5, 0.9]
        """
        count = int(min(count, self.size))
        if count == 1:
            return [self.middle]
        if self.choices:
            return [self.choices[round(i * (len(self.choices) - 1) / (count - 1))] for i in range(count)]
        shares = [i / (count - 1) for i in range(count)]
        if self.log:
            spread = [self.low ** (1 - share) * self.high**share for share in shares]
        else:
            spread = [self.low * (1 - share) + self.high * share for share in shares]
        # Rounding may move an end beyond its bound.
        inside = [min(max(value, self.low), self.high) for value in spread]
        return list(dict.fromkeys(map(round, inside))) if self.whole else list(inside)

    def suggest(self, trial: BaseTrial, name: str) -> Value:
        """Return a value chosen by the sampler of an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)  # type: ignore[return-value]  # none of them is None
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def as_dict(self) -> dict[str, Any]:
        """Return the range as plain data, for JSON."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log}


Space = Mapping[str, Range]


def parse_space(table: Mapping[str, Any]) -> dict[str, Range]:
    """Read a table of ranges from a study file.

    Raises
    ------
    InputError
        If a parameter is not known, or its range cannot be used.

    Examples
    --------
    >>> parse_space({"lr": {"log": [0.005, 0.5]}, "momentum": [0, 0.9]})["momentum"].choices
    (0, 0.9)
    """
    return {name: _range(name, given) for name, given in table.items()}


def parse_search(words: Sequence[str]) -> dict[str, Range]:
    """Read ranges from the words of a command line: NAME=log:LOW:HIGH, NAME=linear:LOW:HIGH or NAME=VALUE,VALUE,...

    Raises
    ------
    InputError
        If a word has another form, or a parameter is not known, is given twice, or has a range that cannot be used.

    Examples
    --------
    >>> parse_search(["lr=log:0.005:0.5"])["lr"].high
    0.5
    """
    table: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        scale, colon, bounds = text.partition(":")
        if not (name and text):
            raise InputError(f"search: expected {_FORM}, got {word!r}")
        if name in table:
            raise InputError(f"search: {name} is given twice")
        table[name] = {scale: list(map(_value, bounds.split(":")))} if colon else list(map(_value, text.split(",")))
    return parse_space(table)


def grid(space: Space, trials: int) -> list[dict[str, Value]]:
    """Return at most ``trials`` combinations of evenly spread values, with about equally many values of each parameter.

    Raises
    ------
    InputError
        If ``trials`` is not positive.

    Examples
    --------
    >>> grid({"lr": Range(0, 1), "momentum": Range(choices=(0, 0.9))}, 7)[:2]
    [{'lr': 0.0, 'momentum': 0}, {'lr': 0.0, 'momentum': 0.9}]
    >>> len(grid({"lr": Range(0, 1), "momentum": Range(choices=(0, 0.9))}, 7))
    6
    """
    if trials < 1:
        raise InputError(f"trials: expected a positive number, got {trials}")
    counts = dict.fromkeys(space, 1)
    while True:
        growing = [
            name
            for name, count in counts.items()
            if count < space[name].size and math.prod(counts.values()) // count * (count + 1) <= trials
        ]
        if not growing:
            break
        counts[min(growing, key=counts.__getitem__)] += 1
    points = [space[name].points(count) for name, count in counts.items()]
    return [dict(zip(space, values, strict=True)) for values in product(*points)]


def coefficients_of(rule: str) -> list[str]:
    """Return the names of a rule's coefficients and options."""
    return [field.name for field in dataclasses.fields(RULES[rule])]


def every_coefficient() -> list[str]:
    """Return the names of the coefficients and options of all rules, each once."""
    return list(dict.fromkeys(name for rule in RULES for name in coefficients_of(rule)))


def _range(name: str, given: Any) -> Range:
    if name in settings_with_role("protocol"):
        raise InputError(f"search: {name!r} cannot be searched, because a search sets it itself")
    if name in settings_with_role("location", "recording"):
        raise InputError(f"search: {name!r} cannot be searched, because it does not change what is learned")
    check_one_of("search: parameter", name, [*SEARCHABLE, *every_coefficient()])
    try:
        match given:
            case [*choices] if all(isinstance(choice, Value) for choice in choices):
                return Range(choices=tuple(choices))
            case {"log": [low, high]} | {"linear": [low, high]} if len(given) == 1 and _is_number(low, high):
                return Range(low, high, log="log" in given)
    except InputError as error:
        raise InputError(f"search: {name}: {error}") from None
    shown = given
    if isinstance(given, dict) and len(given) == 1:
        scale = next(iter(given))
        check_one_of(f"search: {name}: scale", scale, _SCALES)
        shown = f"{scale} of {given[scale]!r}"
    raise InputError(f"search: {name}: expected two numbers, log or linear, or a list of choices; got {shown}")


def _value(word: str) -> Value:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(word, word)


def _is_number(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
