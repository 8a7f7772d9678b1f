"""Interleaved timing: on a noisy machine, only ratios of times measured close together are meaningful."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def paired_ratios(
    functions: Mapping[str, Callable[[], object]], *, rounds: int, repeat: int = 3, warm: int = 2
) -> dict[str, tuple[float, float]]:
    """Return each function's median seconds, and its median ratio to the first function in the same round.

    Each function is called ``repeat`` times in a row, as in training, so that it finds its own data in the caches from
    the second call on, and ``warm`` times before all rounds. The order rotates from round to round, so that no function
    always runs after the same one.
    """
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for function in functions.values():
        for _ in range(warm):
            function()
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.perf_counter()
            for _ in range(repeat):
                functions[name]()
            seconds[name].append((time.perf_counter() - began) / repeat)
    first = seconds[names[0]]
    return {
        name: (
            statistics.median(times),
            statistics.median(mine / reference for mine, reference in zip(times, first, strict=True)),
        )
        for name, times in seconds.items()
    }
