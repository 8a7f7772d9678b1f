"""Sudden jumps of the loss or of the feedback norm, noticed while a run trains, and the snapshots around them.

The whole state is plain data that a checkpoint holds, so that a resumed run agrees with one that was never killed.
"""

from __future__ import annotations

import copy
import math
from statistics import median
from typing import Any

from wtdiag.probes.errors import InputError

AFTER_TROUBLE = (0, 1, 2, 4, 8)
"""Steps after trouble is noticed at which a snapshot is taken, in addition to the copy that was staged before it."""


class Trouble:
    """A watch for sudden jumps of the loss or of the feedback norm, which asks for snapshots around them.

    A value v jumps if it is not finite, or if it rose, v > u, and

        v > m + max(6 · 1.4826 · MAD, |m| / 2, |v₀| / 4)

    where u is the value before, m and MAD are the median and the median absolute deviation of the last 50 values, and
    v₀ is the first value of the run. This is Hampel's identifier, with floors for quiet stretches. It needs 10 values;
    before, at the beginning of a run, v jumps if v > u and v > 10 |v₀| > 0. A jump ends the baseline, and a new one is
    collected, which again needs 10 values.

    Parameters
    ----------
    budget
        Number of snapshots that may be taken because of trouble, the plan's ``reserve``. When they are used up, no more
        trouble is reported.

    Examples
    --------
    >>> trouble = Trouble(budget=6)
    >>> for step in range(20):
    ...     quiet = trouble.update(step, loss=1.0 + 0.1 * (step % 2))
    >>> trouble.update(20, loss=4.0)
    'loss jumped to 4 from about 1.05'
    >>> [step for step in range(40) if trouble.wants(step)]
    [20, 21, 22, 24, 28]
    """

    WINDOW, LEAST = 50, 10

    def __init__(self, budget: int) -> None:
        self._state: dict[str, Any] = {"left": budget, "due": [], "windows": {}, "first": {}}

    def update(self, step: int, **values: float | None) -> str | None:
        """Add values that are read at ``step`` (None: not measured); return a sentence on those that jumped, or None.

        If there is one, the copy that was staged before is to be kept, and `wants` tells the steps that follow.
        """
        state = self._state
        given = {name: float(value) for name, value in values.items() if value is not None}
        events = [event for name, value in given.items() if (event := self._jump(name, value))]
        if not state["left"]:
            events = []
        if events:
            state["windows"] = {}
            state["left"] -= 1  # for the copy that was staged before
            due = [step + offset for offset in AFTER_TROUBLE][: state["left"]]
            state["left"] -= len(due)
            state["due"] = [old for old in state["due"] if old > step] + due
        for name, value in given.items():
            if math.isfinite(value):
                state["first"].setdefault(name, value)
                state["windows"].setdefault(name, []).append(value)
                del state["windows"][name][: -self.WINDOW]
        return "; ".join(events) or None

    def wants(self, step: int) -> bool:
        """Return whether a snapshot of ``step`` is due because of trouble at it or shortly before."""
        return step in self._state["due"]

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state, as numbers in lists and dicts."""
        return copy.deepcopy(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state that `state_dict` returned.

        Raises
        ------
        InputError
            If ``state`` is not such a state.
        """
        match state:
            case {"left": int(), "due": [*due], "windows": dict(windows), "first": dict(first)} if (
                all(isinstance(step, int) for step in due)
                and all(isinstance(value, float) for value in first.values())
                and all(isinstance(window, list) for window in windows.values())
                and all(isinstance(value, float) for window in windows.values() for value in window)
                and windows.keys() <= first.keys()
            ):
                self._state = copy.deepcopy(state)
            case _:
                raise InputError(f"trouble: expected what state_dict returns, got {str(state)[:80]}")

    def _jump(self, name: str, value: float) -> str | None:
        window = self._state["windows"].get(name, [])
        if not math.isfinite(value):
            # This is reported once: after a value that is not finite there is no baseline before the next finite one.
            return f"{name} became {value:g}" if window else None
        if not window or value <= window[-1]:
            return None
        first = self._state["first"][name]
        if len(window) < self.LEAST:
            began = window[0] == first  # no jump has ended the first baseline yet
            return f"{name} jumped to {value:.4g} from {first:.4g}" if began and value > 10 * abs(first) > 0 else None
        middle = median(window)
        rise = value - middle
        if rise <= max(abs(middle) / 2, abs(first) / 4):
            return None
        if rise <= 6 * 1.4826 * median(abs(old - middle) for old in window):
            return None
        return f"{name} jumped to {value:.4g} from about {middle:.4g}"
