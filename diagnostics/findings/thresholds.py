"""All thresholds of the diagnosis, in one table, with how well the findings that rest on them did.

Precision and recall are those of the kind of finding, on runs whose fault was known: ``python -m bench faults``
counts them, on seeds that no threshold was chosen on, and writes them into ``docs/findings.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Threshold:
    """A number that a measure is held against.

    Attributes
    ----------
    kind : str
        The kind of finding that it guards.
    value : float
        The number.
    units : str
        Of the number.
    guards : str
        What lies beyond it.
    """

    kind: str
    value: float
    units: str
    guards: str


@dataclass(frozen=True)
class Record:
    """How a kind of finding did where the truth was known.

    Attributes
    ----------
    right, named, planted : int
        How often it came first and was right, layer included; came first at all; and should have come first.
    runs : int
        How many runs these were counted on, the healthy included.
    """

    right: int
    named: int
    planted: int
    runs: int

    @property
    def precision(self) -> float:
        """Share of its namings that were right; NaN without any."""
        return self.right / self.named if self.named else math.nan

    @property
    def recall(self) -> float:
        """Share of its faults that were named; NaN without any."""
        return self.right / self.planted if self.planted else math.nan


THRESHOLDS: dict[str, Threshold] = {
    "step_size_number": Threshold("step-too-large", 1.0, "1", "a step of B that overshoots by more than it corrects"),
    "runaway": Threshold("step-too-large", 10.0, "1", "growth of B or its norm ratio over its start: it ran away"),
    "norm_ratio_high": Threshold("feedback-too-large", 3.0, "1", "norm ratio of a layer, if it is also ..."),
    "norm_ratio_excess": Threshold("feedback-too-large", 4.0, "1", "... so many times the median of the other layers"),
    "gain_high": Threshold("feedback-too-large", 3.0, "1", "predicted gain of a layer, if it is also ..."),
    "gain_excess": Threshold("feedback-too-large", 4.0, "1", "... so many times the median of the other layers"),
    "norm_ratio_sum": Threshold("feedback-too-large", 7.0, "1", "sum over layers of log |B| / |W|: errors blow up"),
    "gain_sum": Threshold("feedback-too-large", 7.0, "1", "sum over layers of log predicted gain: errors will blow up"),
    "norm_ratio_low": Threshold("feedback-too-small", 0.33, "1", "norm ratio of a layer, if it is also ..."),
    "norm_ratio_deficit": Threshold("feedback-too-small", 0.25, "1", "... so small a share of the others' median"),
    "norm_ratio_sum_low": Threshold("feedback-too-small", -7.0, "1", "sum over layers of log |B| / |W|: errors vanish"),
    "rest_distance": Threshold("feedback-too-slow", 0.5, "1", "share of B* that B lacks: it is not at rest"),
    "tracking_lag": Threshold("feedback-too-slow", 0.3, "1", "change of W within the time that B takes to follow"),
    "relaxations": Threshold("feedback-too-slow", 1.0, "1", "relaxation times since the run began: fewer are no time"),
    "still": Threshold("frozen-feedback", 3.0, "1", "snapshots in a row in which B is bitwise the same"),
    "ceiling_angle": Threshold("angle-at-ceiling", 30.0, "degree", "angle at rest that training longer cannot mend"),
    "ceiling_costly": Threshold("angle-at-ceiling", 60.0, "degree", "the same, of severity medium"),
    "ceiling_margin": Threshold("angle-at-ceiling", 5.0, "degree", "distance to the predicted angle: B has arrived"),
    "settled": Threshold("noisy-feedback", 5.0, "1", "relaxation times since the run began: B should be at rest"),
    "noise_angle": Threshold("noisy-feedback", 30.0, "degree", "angle that noise adds at rest"),
    "chance_deviations": Threshold("not-aligning", 3.0, "1", "standard deviations of chance around its mean"),
    "inherited_angle": Threshold("inherited-error", 60.0, "degree", "angle of the error sent on to exact backprop's"),
    "inherited_margin": Threshold("inherited-error", 5.0, "degree", "by how much what was inherited exceeds the local"),
    "flipped_angle": Threshold("sign-flip", 5.0, "degree", "angle of B beyond the 90° at which it says nothing"),
    "flipped_over": Threshold("sign-flip", 120.0, "degree", "angle of B, of severity high"),
    "rank_share": Threshold("rank-collapse", 0.1, "1", "effective rank, less 1, as a share of W's or of its start"),
    "radial_cosine": Threshold("bn-runaway", 1e-3, "1", "cosine of W and its gradient: below, the loss ignores |W|"),
    "norm_growth": Threshold("bn-runaway", 3.0, "1", "growth of |W| over its start"),
    "dead_units": Threshold("signal-below-floor", 0.95, "1", "share of units that no error reaches"),
    "loss_growth": Threshold("divergence", 10.0, "1", "loss over its first value, from some step on to the end"),
    "error_norm_ratio": Threshold("signal-below-floor", 1e6, "1", "norm of the error over backprop's, either way"),
}  # fmt: skip

RECORDS: dict[str, Record] = {
    "feedback-too-large": Record(right=9, named=9, planted=9, runs=90),
    "feedback-too-small": Record(right=12, named=12, planted=12, runs=90),
    "sign-flip": Record(right=3, named=3, planted=3, runs=90),
    "frozen-feedback": Record(right=6, named=6, planted=6, runs=90),
    "rank-collapse": Record(right=3, named=3, planted=3, runs=90),
    "step-too-large": Record(right=9, named=9, planted=9, runs=90),
    "noisy-feedback": Record(right=6, named=6, planted=6, runs=90),
    "feedback-too-slow": Record(right=3, named=3, planted=3, runs=90),
    "signal-below-floor": Record(right=3, named=3, planted=3, runs=90),
    "divergence": Record(right=3, named=3, planted=3, runs=90),
    "bn-runaway": Record(right=3, named=3, planted=3, runs=90),
}
"""What ``python -m bench faults`` counted, by kind of finding."""


def confidence(kind: str) -> float:
    """Return how likely a finding of a kind is right: (right + 1) / (named + 2), Laplace's rule of succession.

    So it is 0.5 where nobody has measured it, and near 1 only after many namings that were right.

    Examples
    --------
    >>> confidence("inherited-error")
    0.5
    """
    record = RECORDS.get(kind, Record(0, 0, 0, 0))
    return (record.right + 1) / (record.named + 2)


def limit(name: str) -> float:
    """Return a threshold's value.

    Examples
    --------
    >>> limit("step_size_number")
    1.0
    """
    return THRESHOLDS[name].value
