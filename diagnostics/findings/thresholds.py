"""Thresholds of the diagnosis in one table, and the precision of the findings that rest on them.

Numbers that say what a word means stand where they are used instead: how many snapshots or lines of metrics show a
trend, that half of the signs agree by chance, and that a loss rose or fell if it did so by half of where it began.

Precision and recall belong to the kind of finding. ``python -m bench faults`` counts them in runs whose fault was
known, on seeds on which no threshold was chosen, and writes them into ``docs/findings.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wtdiag.diagnostics.analysis.accuracy import LEARNED
from wtdiag.diagnostics.analysis.chance import DEVIATIONS


@dataclass(frozen=True)
class Threshold:
    """A number that a measure is compared with.

    Attributes
    ----------
    kind : str
        The kind of finding that it decides.
    value : float
        The number.
    units : str
        Units of the number.
    guards : str
        The quantity that is compared with it, and what it means to lie beyond it.
    """

    kind: str
    value: float
    units: str
    guards: str


@dataclass(frozen=True)
class Record:
    """Counts of a kind of finding in runs whose fault was known.

    Attributes
    ----------
    right, named, planted : int
        How often it came first and was right, also about the layer; how often it came first at all; and how often it
        should have come first.
    runs : int
        Number of runs, including the healthy ones.
    """

    right: int
    named: int
    planted: int
    runs: int

    @property
    def precision(self) -> float:
        """Share of the runs where it came first in which it was right; NaN if it never came first."""
        return self.right / self.named if self.named else math.nan

    @property
    def recall(self) -> float:
        """Share of the runs with its fault in which it came first; NaN if there are none."""
        return self.right / self.planted if self.planted else math.nan


THRESHOLDS: dict[str, Threshold] = {
    "step_size_number": Threshold("step-too-large", 1.0, "1", "a step of B that overshoots by more than it corrects"),
    "runaway": Threshold("step-too-large", 10.0, "1", "growth of B or of its norm ratio since the start: B ran away"),
    "norm_ratio_high": Threshold("feedback-too-large", 2.4, "1", "norm ratio of a layer, with `norm_ratio_excess`"),
    "norm_ratio_excess": Threshold("feedback-too-large", 2.4, "1", "norm ratio over the median of the other layers"),
    "gain_high": Threshold("feedback-too-large", 2.4, "1", "predicted gain of a layer, with `gain_excess`"),
    "gain_excess": Threshold("feedback-too-large", 2.4, "1", "predicted gain over the median of the other layers"),
    "size_severe": Threshold("feedback-too-large", 4.0, "1", "excess or its inverse; beyond, the severity is high"),
    "norm_ratio_sum": Threshold("feedback-too-large", 7.0, "1", "sum over layers of log |B| / |W|: errors blow up"),
    "gain_sum": Threshold("feedback-too-large", 7.0, "1", "sum over layers of log predicted gain: errors will blow up"),
    "norm_ratio_low": Threshold("feedback-too-small", 0.42, "1", "norm ratio of a layer, with `norm_ratio_deficit`"),
    "norm_ratio_deficit": Threshold("feedback-too-small", 0.42, "1", "norm ratio over the median of the other layers"),
    "norm_ratio_sum_low": Threshold("feedback-too-small", -7.0, "1", "sum over layers of log |B| / |W|: errors vanish"),
    "rest_distance": Threshold("feedback-too-slow", 0.5, "1", "distance of B to B* over the norm of B*"),
    "tracking_lag": Threshold("feedback-too-slow", 0.3, "1", "relative change of W within one relaxation time of B"),
    "relaxations": Threshold("feedback-too-slow", 1.0, "1", "relaxation times since the start; below, B had no time"),
    "relative_step": Threshold("adam-step-too-large", 1.0, "1", "step of B over the norm of B*, with `rest_distance`"),
    "arrivals": Threshold("adam-step-too-large", 10.0, "1", "steps since the start over the travel time at the start"),
    "travel_share": Threshold("adam-step-too-small", 1.0, "1", "travel time at the start over the steps of the run"),
    "still": Threshold("frozen-feedback", 3.0, "1", "consecutive snapshots in which B is bitwise the same"),
    "ceiling_angle": Threshold("angle-at-ceiling", 30.0, "degree", "angle at rest; longer training cannot improve it"),
    "ceiling_costly": Threshold("angle-at-ceiling", 60.0, "degree", "angle at rest above which the severity is medium"),
    "ceiling_margin": Threshold("angle-at-ceiling", 5.0, "degree", "tolerance around the predicted angle"),
    "slow_excess": Threshold("feedback-too-slow", 4.0, "1", "relaxation time over the median of the other layers"),
    "disturbance": Threshold("noisy-feedback", 0.3, "1", "distance of B to B* over ‖B*‖, beyond twice that of noise"),
    "driven": Threshold("noisy-feedback", 2.0, "1", "|B| over the most that its rule can have made it so far"),
    "settled": Threshold("noisy-feedback", 5.0, "1", "relaxation times since the start, after which B should rest"),
    "noise_angle": Threshold("noisy-feedback", 30.0, "degree", "angle that noise adds to B at rest"),
    "chance_deviations": Threshold("not-aligning", DEVIATIONS, "1", "standard deviations from the mean by chance"),
    "inherited_angle": Threshold("inherited-error", 60.0, "degree", "angle of the error sent on off exact backprop"),
    "inherited_margin": Threshold("inherited-error", 5.0, "degree", "excess of the inherited angle over the local one"),
    "flipped_angle": Threshold("sign-flip", 5.0, "degree", "excess of the weight angle over 90°"),
    "flipped_over": Threshold("sign-flip", 120.0, "degree", "weight angle above which the severity is high"),
    "rank_share": Threshold("rank-collapse", 0.1, "1", "erank − 1 of B over that of W, or of W over its start"),
    "radial_cosine": Threshold("bn-runaway", 1e-3, "1", "cosine of W and its gradient; below it, the loss ignores |W|"),
    "norm_growth": Threshold("bn-runaway", 6.0, "1", "growth of |W| since the start"),
    "dead_units": Threshold("signal-below-floor", 0.95, "1", "share of units that no error reaches"),
    "relative_update": Threshold("forward-step-too-large", 1.0, "1", "change of W in one step over W, with momentum"),
    "update_severe": Threshold("forward-step-too-large", 10.0, "1", "the same, above which one step alone is severe"),
    "loss_growth": Threshold("divergence", 10.0, "1", "loss over its first value, from some step until the end"),
    "learned": Threshold("learned-nothing", LEARNED, "1", "share of the way from chance to 1 that accuracy went"),
    "behind": Threshold("behind-reference", 0.02, "1", "accuracy of the reference run minus that of the run"),
    "behind_costly": Threshold("behind-reference", 0.05, "1", "the same, above which the severity is medium"),
    "fewest_steps": Threshold("undertrained", 20.0, "step", "steps of training; below, nothing can be told"),
    "gain": Threshold("undertrained", 0.03, "1", "accuracy that training twice as long is predicted to add"),
    "gain_costly": Threshold("undertrained", 0.1, "1", "the same, above which the severity is medium"),
    "loss_gain": Threshold("undertrained", 0.1, "1", "fall of the loss that this is predicted to bring"),
    "error_rank_share": Threshold("error-rank-collapse", 0.1, "1", "erank − 1 of the error sent on over backprop's"),
    "error_rank_exact": Threshold("error-rank-collapse", 1.0, "1", "erank − 1 of backprop's; below, nothing is lost"),
    "frozen_gain": Threshold("no-better-than-frozen", 0.0, "1", "lower end of the interval of learned minus frozen"),
    "residual_growth": Threshold("residual-growth", 10.0, "1", "growth of the hidden signal through one block"),
    "error_norm_ratio": Threshold("signal-below-floor", 1e6, "1", "norm of the error over backprop's, or the inverse"),
}  # fmt: skip

RECORDS: dict[str, Record] = {
    "feedback-too-large": Record(right=18, named=19, planted=22, runs=194),
    "feedback-too-small": Record(right=22, named=23, planted=22, runs=194),
    "sign-flip": Record(right=6, named=6, planted=9, runs=194),
    "frozen-feedback": Record(right=10, named=10, planted=10, runs=194),
    "rank-collapse": Record(right=3, named=4, planted=3, runs=194),
    "step-too-large": Record(right=10, named=10, planted=10, runs=194),
    "noisy-feedback": Record(right=18, named=19, planted=22, runs=194),
    "feedback-too-slow": Record(right=3, named=12, planted=3, runs=194),
    "signal-below-floor": Record(right=2, named=3, planted=2, runs=194),
    "divergence": Record(right=3, named=3, planted=3, runs=194),
    "bn-runaway": Record(right=3, named=7, planted=3, runs=194),
    "adam-step-too-large": Record(right=1, named=1, planted=3, runs=194),
    "adam-step-too-small": Record(right=3, named=6, planted=3, runs=194),
    "angle-at-ceiling": Record(right=1, named=1, planted=1, runs=194),
    "inherited-error": Record(right=3, named=3, planted=3, runs=194),
    "not-aligning": Record(right=3, named=7, planted=3, runs=194),
    "error-rank-collapse": Record(right=4, named=4, planted=4, runs=84),
    "residual-growth": Record(right=7, named=7, planted=8, runs=84),
    "no-better-than-frozen": Record(right=9, named=9, planted=12, runs=24),
}
"""What ``python -m bench faults``, ``later_faults`` and ``unearned`` counted, by kind of finding."""


def confidence(kind: str) -> float:
    """Return how likely a finding of a kind is right: (right + 1) / (named + 2), Laplace's rule of succession.

    It is NaN if the kind has not been measured, and near 1 only if it was right in many runs.

    Examples
    --------
    >>> confidence("nobody's")
    nan
    """
    record = RECORDS.get(kind)
    return (record.right + 1) / (record.named + 2) if record else math.nan


def limit(name: str) -> float:
    """Return a threshold's value.

    Examples
    --------
    >>> limit("step_size_number")
    1.0
    """
    return THRESHOLDS[name].value
