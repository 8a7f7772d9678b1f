"""Steps of Adam on B that do not fit: as large as B itself, or too small for the steps of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.kinds.base import Sighting, evidence, kind, last_stretch
from wtdiag.diagnostics.findings.severity import of_hampered_learning
from wtdiag.diagnostics.findings.thresholds import limit

_KINGMA = "docs/theory.md; Kingma and Ba 2015, arXiv:1412.6980, section 2.1, for the size of Adam's steps"


@kind(
    "adam-step-too-large",
    meaning="Adam moves each entry of B by up to the learning rate in each step, however small the gradient is. Here "
    "one step is larger than all that B has to learn, and B jumps about its fixed point instead of settling there.",
    advice=(
        "Take larger batches, which make the gradient less noisy; smaller coefficients of the rule do not help, "
        "because Adam divides by the size of the gradient.",
    ),
    equation="η√n / ‖B*‖ > 1 for the n entries of B, and ‖B − B*‖ / ‖B*‖ stays large",
    reference=_KINGMA,
    needs=("relative_step", "travel_time", "rest_distance"),
    effects=("not-aligning", "sign-flip", "noisy-feedback", "rank-collapse", "feedback-too-large",
             "feedback-too-small"),
    effects_below=("inherited-error", "signal-below-floor", "divergence", "forward-step-too-large", "bn-runaway",
                   "feedback-too-large"),
)  # fmt: skip
def adam_step_too_large(view: View) -> Iterator[Sighting]:
    """Find B away from its fixed point at the end, although it had time and a step was at some time larger than B*.

    If the fixed point runs away with the weights, the step becomes small beside it, and yet it was the cause.
    """
    size, rest, travel = view["relative_step"], view["rest_distance"], view["travel_time"]
    size = np.where(np.isnan(travel), np.nan, size)  # SGD has no travel time
    rates = view.rates("feedback_lr")
    for layer in view.carrying:
        known = np.flatnonzero(np.isfinite(size[:, layer]))
        if not len(known):
            continue
        had_time = view.steps - view.steps[known[0]] > limit("arrivals") * np.fmax(travel[known[0], layer], 1)
        jumps = np.fmax.accumulate(size[:, layer]) > limit("relative_step")
        away = jumps & had_time & (rest[:, layer] > limit("rest_distance"))
        seen = last_stretch(away, np.isfinite(rest[:, layer]))
        if not seen:
            continue
        first, last = seen
        worst = int(known[np.argmax(size[known, layer])])
        rate = 0.1 * rates[worst] / size[worst, layer]
        yield Sighting(
            layer,
            first,
            last,
            of_hampered_learning(view),
            f"Adam's steps on the feedback of {view.layers[layer]} are too large: at step {view.steps[worst]} a step "
            f"is {size[worst, layer]:.3g} times as large as the fixed point, and at step {view.steps[last]} the "
            f"feedback is {100 * rest[last, layer]:.0f} % away from it.",
            (
                evidence(view, "relative_step", worst, layer, ">", "relative_step"),
                evidence(view, "rest_distance", last, layer, ">", "rest_distance"),
            ),
            (remedies.feedback_rate(rate, "each of its steps is then a tenth of the fixed point"),),
        )


@kind(
    "adam-step-too-small",
    meaning="Adam moves each entry of B by at most about the learning rate in each step. All steps of this run "
    "together are too short for the distance to the fixed point, so B stays near the random weights that it began as.",
    advice=(
        remedies.more_epochs,
        "Larger coefficients of the rule do not help, because Adam divides by the size of the gradient.",
    ),
    equation="rms(B* − B) / η > the number of steps",
    reference=_KINGMA,
    needs=("travel_time", "rest_distance"),
    effects=("not-aligning", "feedback-too-slow"),
    effects_below=("inherited-error",),
)
def adam_step_too_small(view: View) -> Iterator[Sighting]:
    """Find B away from its fixed point at the end, and at the start further away than all steps of the run reach."""
    rest, travel, rates = view["rest_distance"], view["travel_time"], view.rates("feedback_lr")
    for layer in view.carrying:
        known = np.flatnonzero(np.isfinite(travel[:, layer]))
        if not len(known):
            continue
        start = int(known[0])
        steps = _end(view) - float(view.steps[start])
        needed = travel[start, layer] / steps if steps > 0 else np.nan
        seen = last_stretch(rest[:, layer] > limit("rest_distance"), np.isfinite(rest[:, layer]))
        if not seen or not needed > limit("travel_share"):
            continue
        last = seen[1]
        rate = 10 * rates[start] * needed
        yield Sighting(
            layer,
            start,
            last,
            of_hampered_learning(view),
            f"Adam's steps on the feedback of {view.layers[layer]} are too small: it needs at least "
            f"{travel[start, layer]:.0f} of them to reach its fixed point, the run has {steps:.0f}, and at step "
            f"{view.steps[last]} the feedback is {100 * rest[last, layer]:.0f} % away from it.",
            (
                evidence(view, "travel_time", start, layer, ">", limit("travel_share") * steps, "step"),
                evidence(view, "rest_distance", last, layer, ">", "rest_distance"),
            ),
            (remedies.feedback_rate(rate, "it can then arrive within a tenth of the run"),),
        )


def _end(view: View) -> float:
    """Return the last step of the run; while it runs, the planned one, or NaN if its settings do not tell it."""
    if view.config.get("status") != "running":
        return float(view.steps[-1])
    settings, epochs = view.config.get("settings"), view.metric("epoch").dropna()
    planned = settings.get("epochs") if isinstance(settings, dict) else None
    if isinstance(planned, int | float) and len(epochs) and epochs.iloc[-1] > 0:
        return float(epochs.index[-1] / epochs.iloc[-1]) * planned
    return math.nan
