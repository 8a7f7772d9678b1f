"""When to take a snapshot: at planned steps, and around trouble.

Both are pure functions of plain data that a checkpoint holds, so that a resumed run agrees with one never
killed.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from wtdiag.probes.errors import InputError

AFTER_TROUBLE = (0, 1, 2, 4, 8)
"""Steps after trouble struck at which a snapshot is taken, beside the copy staged before it."""


@dataclass(frozen=True)
class SnapshotPlan:
    """The steps at which a run of ``total`` steps takes a snapshot; ``step in plan`` asks for one.

    Parameters
    ----------
    total
        Training steps of the whole run. Step ``total`` is in every plan, step 0 (before training) in all but those of
        one snapshot. A run that diverges never comes to ``total``: its last snapshot takes that place.
    count
        That many steps, log-spaced: the ratio between neighbours is constant as far as whole numbers allow.
    every
        Also each multiple of this interval.
    max_gb
        Limit in gigabytes (10⁹ bytes). A plan that does not fit is thinned evenly, which keeps log spacing;
        the last step is kept to the end. A quarter of the limit, though no more than one episode of trouble
        needs, is set aside for `Trouble`.
    snapshot_bytes
        Size of one snapshot, from `trainers.record.staging.snapshot_bytes`; ``max_gb`` needs it.

    Attributes
    ----------
    steps : tuple of int
        Planned steps, ascending.
    reserve : int
        Snapshots that trouble may take beyond the plan: what the limit leaves; without one as many as are planned, and
        no fewer than one episode needs.

    Raises
    ------
    InputError
        If a number is not positive, or not one snapshot fits in ``max_gb``.

    Examples
    --------
    >>> SnapshotPlan(1000, count=10).steps
    (0, 1, 2, 5, 12, 29, 70, 170, 412, 1000)
    >>> SnapshotPlan(1000, count=2, every=400).steps
    (0, 400, 800, 1000)
    >>> plan = SnapshotPlan(1000, count=10, max_gb=1.0, snapshot_bytes=10**9 // 8)
    >>> plan.steps, plan.reserve
    ((0, 2, 12, 29, 170, 1000), 2)
    """

    total: int
    count: int = 30
    every: int | None = None
    max_gb: float | None = None
    snapshot_bytes: int = 0
    steps: tuple[int, ...] = field(init=False)
    reserve: int = field(init=False)

    def __post_init__(self) -> None:
        _check_whole("total", self.total, least=0)
        _check_whole("count", self.count, least=2)
        planned = set(_log_spaced(self.total, self.count))
        if self.every is not None:
            _check_whole("every", self.every, least=1)
            planned.update(range(0, self.total + 1, self.every))
        episode = 1 + len(AFTER_TROUBLE)
        steps, reserve = sorted(planned), max(len(planned), episode)
        if self.max_gb is not None:
            fit = self._fit()
            steps = _thin(steps, fit - min(fit // 4, episode))
            reserve = fit - len(steps)
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "reserve", reserve)

    def __contains__(self, step: int) -> bool:
        place = bisect_left(self.steps, step)
        return place < len(self.steps) and self.steps[place] == step

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def _fit(self) -> int:
        assert self.max_gb is not None
        if not self.max_gb > 0 or self.snapshot_bytes < 1:
            raise InputError(
                "max_gb: expected a positive number of gigabytes and the bytes of a snapshot, "
                f"got {self.max_gb!r} and {self.snapshot_bytes!r}"
            )
        fit = self.max_gb * 1e9 / self.snapshot_bytes
        if fit < 1:
            raise InputError(
                f"max_gb: {self.max_gb:g} holds no snapshot of this model; expected at least "
                f"{self.snapshot_bytes / 1e9:.3g}, the size of one"
            )
        return int(min(fit, 1e9))


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
        Snapshots that may be taken because of trouble: `SnapshotPlan.reserve`. When they are used up no more
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


def _log_spaced(total: int, count: int) -> list[int]:
    """Return 0, then log-spaced steps up to ``total``: ``count`` in all, or every step if there are fewer."""
    steps = [0]
    for left in range(min(count, total + 1) - 1, 0, -1):
        last = steps[-1]
        # The ratio that is left to go, anew at each step: small numbers cannot be spaced by less than one.
        ideal = last * (total / last) ** (1 / left) if last else 1
        steps.append(total if left == 1 else max(round(ideal), last + 1))
    return steps


def _thin(steps: list[int], count: int) -> list[int]:
    """Keep ``count`` of the steps, evenly by rank, from the first to the last; if only one, the last."""
    if len(steps) <= count:
        return steps
    if count == 1:
        return steps[-1:]
    return [steps[round(rank * (len(steps) - 1) / (count - 1))] for rank in range(count)]


def _check_whole(argument: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{argument}: expected a whole number of at least {least}, got {value!r}")
