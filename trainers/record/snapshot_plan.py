"""The steps at which a run takes a snapshot, planned before it begins."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wtdiag.probes.errors import InputError
from wtdiag.trainers.record.spikes import AFTER_TROUBLE


@dataclass(frozen=True)
class SnapshotPlan:
    """The steps at which a run of ``total`` steps takes a snapshot; ``step in plan`` asks whether a step is one.

    Parameters
    ----------
    total
        Training steps of the whole run. Step ``total`` is in every plan, and step 0 (before training) in every plan of
        more than one snapshot. A run that diverges never reaches ``total``; its last snapshot takes that place.
    count
        Number of log-spaced steps: the ratio of neighbours is constant as far as whole numbers allow.
    every
        Interval of which each multiple is planned too.
    max_gb
        Limit in gigabytes (10⁹ bytes). A plan that does not fit is thinned evenly, which keeps the log spacing; the
        last step is always kept. A quarter of the limit, but no more than one episode of trouble needs, is reserved
        for `trainers.record.spikes.Trouble`.
    snapshot_bytes
        Size of one snapshot, from `trainers.record.staging.snapshot_bytes`; ``max_gb`` needs it.

    Attributes
    ----------
    steps : tuple of int
        Planned steps, ascending.
    reserve : int
        Number of snapshots that trouble may take in addition to the plan: as many as the limit leaves. Without a limit
        it is the number of planned snapshots, but at least the number that one episode needs.

    Raises
    ------
    InputError
        If a number is not positive, or if not even one snapshot fits in ``max_gb``.

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
                f"max_gb: {self.max_gb:g} is too little for a snapshot of this model; expected at least "
                f"{self.snapshot_bytes / 1e9:.3g}, the size of one"
            )
        return int(min(fit, 1e9))


def _log_spaced(total: int, count: int) -> list[int]:
    """Return 0, then log-spaced steps up to ``total``: ``count`` in all, or every step if there are fewer."""
    steps = [0]
    for left in range(min(count, total + 1) - 1, 0, -1):
        last = steps[-1]
        # The ratio is computed again at each step, because small steps cannot be spaced by less than one.
        ideal = last * (total / last) ** (1 / left) if last else 1
        steps.append(total if left == 1 else max(round(ideal), last + 1))
    return steps


def _thin(steps: list[int], count: int) -> list[int]:
    """Return ``count`` of the steps, evenly by rank from the first to the last; a single one is the last."""
    if len(steps) <= count:
        return steps
    if count == 1:
        return steps[-1:]
    return [steps[round(rank * (len(steps) - 1) / (count - 1))] for rank in range(count)]


def _check_whole(argument: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{argument}: expected a whole number of at least {least}, got {value!r}")
