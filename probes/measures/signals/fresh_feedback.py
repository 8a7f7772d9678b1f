"""Angles of the signals under feedback that is drawn afresh: what each angle is by chance, measured.

The analytic chance level of an angle supposes that each unit's error has a random sign. Here the network itself tells
instead: B is drawn anew in all layers, Gaussian and of the same norm, and the error is sent down again. This takes a
forward pass and several backward passes, so these measures are taken only where they are named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

import wtdiag.probes.measures.signals.error_signals
import wtdiag.probes.measures.signals.gradients  # noqa: F401  (their angles are looked up below)
from wtdiag.probes.registry import PROBES, declare, probe

Drawn = Callable[[], Mapping[str, Sequence[float]]]

ANGLES = (
    "error_angle", "error_angle_local", "error_angle_inherited", "error_angle_total", "projection_angle",
    "weight_gradient_angle",
)  # fmt: skip
"""The angles that depend on the feedback, by the names of their probes."""

declare(fresh_angles="function that returns these angles under fresh random feedback, one of each for each draw")


def _summary(name: str, statistic: Callable[..., object]) -> Callable[[Drawn], float]:
    def summary(fresh_angles: Drawn) -> float:
        drawn = np.asarray(fresh_angles().get(name, ()), dtype=np.float64)
        return float(np.asarray(statistic(drawn))) if len(drawn) > 1 else float("nan")

    return summary


for _angle in ANGLES:
    _about = PROBES[_angle]
    for _end, _what, _equation, _statistic in (
        ("fresh", "mean over draws", "E[{}]", np.mean),
        ("fresh_sd", "standard deviation over draws", "√Var[{}]", lambda drawn: np.std(drawn, ddof=1)),
    ):
        _function = _summary(_angle, _statistic)
        _function.__name__ = _function.__qualname__ = f"{_angle}_{_end}"
        _function.__doc__ = (
            f"{_what.capitalize()} of `{_angle}` with B drawn afresh in all layers, Gaussian and of the same norm.\n\n"
            f"It is the measured chance level of `{_angle}`, beside the analytic one, `{_angle}_null`. Under\n"
            "backpropagation, which has no B, one of the norm of W is drawn."
        )
        probe(
            units="degree",
            long_name=f"{_about.long_name}, with fresh random feedback: {_what}",
            equation=f"{_equation.format(_about.equation)}, Bᵢⱼ ~ N(0, ‖B‖² / n)",
            reference="arXiv:2606.21126; Lillicrap et al. 2014, arXiv:1411.0247",
            subject=_about.subject,
            bounds=(0, 180),
            slow=True,
            neutral=90 if _end == "fresh" else None,
        )(_function)
