"""Learning rates and rule coefficients over time, as pure functions of the step, so that they have no state to save."""

from __future__ import annotations

import math
from collections.abc import Callable

from wtdiag.probes.errors import InputError, check_one_of
from wtdiag.probes.records.config import SCHEDULES, Coefficient

Schedule = Callable[[float, float], float | str]


def learning_rate(kind: str, step: int, *, total: int, warmup: int) -> float:
    """Return the factor on the learning rate at a step counted from 0: linear warm-up, then the schedule.

    Parameters
    ----------
    kind
        "constant"; "cosine" (to 0 at the end); "step" (×0.1 at 1/3, 2/3 and 8/9 of the steps).
    step, total, warmup
        This step, the number of all steps, and that of the warm-up.

    Examples
    --------
    >>> [round(learning_rate("cosine", s, total=10, warmup=2), 2) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    check_one_of("schedule", kind, SCHEDULES)
    if step < warmup:
        return (step + 1) / warmup
    if kind == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if kind == "step":
        return float(0.1 ** sum(step >= total * fraction for fraction in (1 / 3, 2 / 3, 8 / 9)))
    return 1.0


def _linear(a: float, b: float) -> Schedule:
    return lambda progress, epoch: a + (b - a) * progress


def _exponential(a: float, b: float) -> Schedule:
    return lambda progress, epoch: a * (b / a) ** progress


def _cyclic(a: float, b: float, period: float) -> Schedule:
    return lambda progress, epoch: b + (a - b) * 0.5 * (1.0 + math.cos(2.0 * math.pi * epoch / period))


def _window(value: float, start: float, stop: float) -> Schedule:
    return lambda progress, epoch: value if start <= epoch < stop else 0.0


SCHEDULE_KINDS: dict[str, tuple[int, Callable[..., Schedule], str]] = {
    "linear": (2, _linear, "linear:FROM:TO over the run"),
    "exponential": (2, _exponential, "exponential:FROM:TO over the run, both positive"),
    "cyclic": (3, _cyclic, "cyclic:HIGH:LOW:EPOCHS, a cosine that starts high"),
    "window": (3, _window, "window:VALUE:START:STOP in epochs, 0 outside"),
}


def coefficient_schedule(name: str, value: Coefficient) -> Schedule:
    """Return a coefficient as a function of progress (0 to 1) and epoch.

    Parameters
    ----------
    name
        Name of the coefficient, for messages.
    value
        A number or word, which stays constant, or one of ``linear:FROM:TO``, ``exponential:FROM:TO``,
        ``cyclic:HIGH:LOW:EPOCHS``, ``window:VALUE:START:STOP``.

    Raises
    ------
    InputError
        If the schedule is unknown, or its numbers are missing or out of range.

    Examples
    --------
    >>> coefficient_schedule("amp", "linear:0.2:0")(0.5, 0.0)
    0.1
    >>> coefficient_schedule("amp", "linear:0.2")
    Traceback (most recent call last):
    ...
    wtdiag.probes.errors.InputError: coefficient amp: expected linear:FROM:TO over the run, got 'linear:0.2'
    """
    if not isinstance(value, str) or ":" not in value:
        return lambda progress, epoch: value
    kind, *words = value.split(":")
    check_one_of(f"schedule of coefficient {name}", kind, SCHEDULE_KINDS)
    count, build, form = SCHEDULE_KINDS[kind]
    problem = InputError(f"coefficient {name}: expected {form}, got {value!r}")
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise problem from None
    positive = {"exponential": numbers, "cyclic": numbers[2:]}.get(kind, [])
    if len(numbers) != count or not all(map(math.isfinite, numbers)) or any(n <= 0 for n in positive):
        raise problem
    return build(*numbers)
