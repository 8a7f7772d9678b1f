"""Sudden jumps of the loss or of the feedback norm, noticed while a run trains, and the snapshots around them.

All that is known is plain data that a checkpoint holds, so that a resumed run agrees with one never killed.
"""

from __future__ import annotations

import copy
import math
from statistics import median
from typing import Any

from wtdiag.probes.errors import InputError

AFTER_TROUBLE = (0, 1, 2, 4, 8)
"""Steps after trouble struck at which a snapshot is taken, beside the copy staged before it."""


class Trouble:
    """Notices a sudden jump of the loss or of the feedback norm, and asks for snapshots around it.

    A value v jumps if it is not finite, or if it rose, v > u, and (Hampel's identifier, with floors against quiet
    stretches)

        v > m + max(6 · 1.4826 · MAD, |m| / 2, |v₀| / 4)

    where u is the value before, m and MAD are the median and the median absolute deviation of the last 50 values, of
    which there must be 10, and v₀ is the first value ever seen. Until there are, in the beginning of a run, v jumps if
    v > u and v > 10 |v₀| > 0. A jump ends the baseline: it is gathered anew, from 10 values on.

    Parameters
    ----------
    budget
        Snapshots that may be taken because of trouble: the plan's ``reserve``. When they are used up no more trouble is
        reported.

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
        """Take in the values at ``step`` (None: not measured); tell what jumped, if anything did.

        A report means that the copy staged before is to be kept and that `wants` names the steps that follow.
        """
        state = self._state
        given = {name: float(value) for name, value in values.items() if value is not None}
        events = [event for name, value in given.items() if (event := self._jump(name, value))]
        if not state["left"]:
            events = []
        if events:
            state["windows"] = {}
            state["left"] -= 1  # the copy staged before
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
        """Whether a snapshot of ``step`` is due because trouble struck at it or shortly before."""
        return step in self._state["due"]

    def state_dict(self) -> dict[str, Any]:
        """Return all there is to know, as numbers in lists and dicts."""
        return copy.deepcopy(self._state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave.

        Raises
        ------
        InputError
            If it is something else.
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
            # Once: what comes after a value that was not finite has no baseline until a finite one is seen.
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
