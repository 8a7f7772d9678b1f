"""Learned feedback, compared with where its rule takes it: frozen, too slow, disturbed, or at rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import Floats, View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.kinds.base import Sighting, evidence, kind, last_stretch
from wtdiag.diagnostics.findings.severity import of_hampered_learning
from wtdiag.diagnostics.findings.thresholds import limit


@kind(
    "frozen-feedback",
    meaning="The rule learns its feedback weights, yet in this layer they do not change at all while the forward "
    "weights do. The errors that the layer sends are at best those of fixed random feedback.",
    advice=(
        "Check that the optimiser holds this layer's `feedback` parameter, that the parameter requires a gradient, "
        "and that nothing resets it. `wtdiag train` takes care of all this; in a loop of your own, give the optimiser "
        "every parameter named feedback.",
    ),
    equation="B(t + 1) = B(t), bitwise",
    reference="Lillicrap et al. 2016, Nature Communications 7:13276, for what fixed feedback can do",
    needs=("feedback_norm", "forward_norm"),
    effects=("not-aligning", "noisy-feedback", "feedback-too-slow", "feedback-too-small", "feedback-too-large",
            "sign-flip", "step-too-large", "rank-collapse"),
    effects_below=("inherited-error",),
)  # fmt: skip
def frozen_feedback(view: View) -> Iterator[Sighting]:
    """Find B bitwise the same over several snapshots, while W and the other layers' B change."""
    norm, forward = view["feedback_norm"], view["forward_norm"]
    moved = view.moved
    w_moved = (forward[1:] != forward[:-1]) & np.isfinite(forward[1:])
    for layer in np.flatnonzero(view.carries & view.learned).tolist():
        others = np.delete(moved & view.learned, layer, axis=1).any(axis=1)
        still = ~moved[:, layer] & others & w_moved[:, layer] & (norm[1:, layer] > 0)  # zero: feedback-too-small
        seen = last_stretch(still, np.isfinite(norm[1:, layer]) & others)
        if seen and seen[1] - seen[0] + 2 >= limit("still"):
            first, last = seen[0], seen[1] + 1
            name = view.layers[layer]
            yield Sighting(
                layer,
                first,
                last,
                "high",
                f"The feedback of {name} has not changed since step {view.steps[first]}, while that of other layers "
                "learns.",
                (evidence(view, "feedback_norm", last, layer, "<", float(norm[first, layer])),),
            )


@kind(
    "feedback-too-slow",
    meaning="W moves on before B has followed it. Feedback that lags fails even if its rule would take it to the right "
    "place.",
    advice=(
        remedies.feedback_in_every_step,
        remedies.faster_feedback,
        remedies.white_inputs,
        remedies.stronger_shared_decay,
        remedies.lower_rate,
    ),
    equation="τ η_W ‖∂L/∂W‖ / ‖W‖, with τ = 1 / (η λ) the relaxation time of B",
    reference="docs/theory.md, for the regularisers of Kunin et al. 2020, arXiv:2003.01513",
    needs=("rest_distance", "relaxation_time", "tracking_lag"),
    effects=("not-aligning", "sign-flip", "noisy-feedback", "feedback-too-small", "feedback-too-large"),
    effects_below=("inherited-error",),
)
def feedback_too_slow(view: View) -> Iterator[Sighting]:
    """Find B far from rest at the end, because it had no time, or because W moves too much within a relaxation time."""
    rest, lag, elapsed = view["rest_distance"], view["tracking_lag"], relaxations(view)
    for layer in view.carrying:
        typical = _median_so_far(lag[:, layer])
        slow = (typical > limit("tracking_lag")) | (elapsed[:, layer] < limit("relaxations"))
        away = (rest[:, layer] > limit("rest_distance")) & slow
        seen = last_stretch(away, np.isfinite(rest[:, layer]))
        if not seen or seen[1] == 0 or not (lag[:, layer] > limit("tracking_lag")).any():
            continue
        first, last = seen
        worst = int(np.nanargmax(lag[:, layer]))
        fastest = np.fmin.reduce(view["relaxation_time"][:, layer])
        yield Sighting(
            layer,
            first,
            last,
            of_hampered_learning(view),
            f"The feedback of {view.layers[layer]} follows too slowly: its relaxation time is at least {fastest:.3g} "
            f"steps, and at step {view.steps[last]} it is {100 * rest[last, layer]:.0f} % away from its fixed point.",
            (
                evidence(view, "rest_distance", last, layer, ">", "rest_distance"),
                evidence(view, "tracking_lag", worst, layer, ">", "tracking_lag"),
            ),
        )


@kind(
    "noisy-feedback",
    meaning="B has had all the time that it needs, and yet it is not where its rule takes it. Something other than the "
    "rule moves it, and the errors that it carries are just as noisy.",
    advice=(
        remedies.without_noise,
        remedies.averaged_feedback,
        "If the angle is far above what noise explains, look for code that changes `feedback` outside the optimiser.",
    ),
    equation="‖B − B*‖ / ‖B*‖ at rest; variance per entry s² / (r (2 − r)), r = η λ",
    reference="docs/theory.md, for the regularisers of Kunin et al. 2020, arXiv:2003.01513",
    needs=("rest_distance", "relaxation_time"),
    effects=("not-aligning", "sign-flip", "feedback-too-large"),
    effects_below=("inherited-error",),
)
def noisy_feedback(view: View) -> Iterator[Sighting]:
    """Find B far from rest although it relaxes fast, or noise that alone turns B far away from its rest."""
    rest, lag, elapsed = view["rest_distance"], view["tracking_lag"], relaxations(view)
    noise = view["predicted_noise_angle"]
    for layer in view.carrying:
        name = view.layers[layer]
        settled = (elapsed[:, layer] > limit("settled")) & ~(_median_so_far(lag[:, layer]) > limit("tracking_lag"))
        away = (rest[:, layer] > limit("rest_distance")) & settled
        seen = last_stretch(away, np.isfinite(rest[:, layer]))
        if seen:
            first, last = seen
            yield Sighting(
                layer,
                first,
                last,
                of_hampered_learning(view),
                f"The feedback of {name} is {100 * rest[last, layer]:.0f} % away from its fixed point at step "
                f"{view.steps[last]}, after {elapsed[last, layer]:.0f} relaxation times: something disturbs it.",
                (evidence(view, "rest_distance", last, layer, ">", "rest_distance"),),
            )
        elif seen := last_stretch(noise[:, layer] > limit("noise_angle"), np.isfinite(noise[:, layer])):
            first, last = seen
            yield Sighting(
                layer,
                first,
                last,
                of_hampered_learning(view),
                f"Noise alone turns the feedback of {name} by {noise[last, layer]:.0f}° away from its fixed point.",
                (evidence(view, "predicted_noise_angle", last, layer, ">", "noise_angle"),),
            )


@kind(
    "angle-at-ceiling",
    meaning="B is where its rule takes it, and that is far from W. Longer training cannot improve this angle.",
    advice=(
        remedies.white_inputs,
        "Choose a rule whose fixed point is W, such as Kolen-Pollack (kp) or the weight mirror on noise (wm).",
    ),
    equation="∠(B*, W), with B* the fixed point at this W",
    reference="docs/theory.md, for the regularisers of Kunin et al. 2020, arXiv:2003.01513",
    needs=("predicted_angle", "weight_angle"),
    effects=("not-aligning",),
    effects_below=("inherited-error",),
)
def angle_at_ceiling(view: View) -> Iterator[Sighting]:
    """Find an angle that at the end equals the predicted one, which is wide."""
    angle, noise = view["weight_angle"], view["predicted_noise_angle"]
    least = np.cos(np.radians(view["predicted_angle"])) * np.cos(np.radians(np.where(np.isnan(noise), 0.0, noise)))
    predicted = np.degrees(np.arccos(np.clip(least, -1, 1)))
    at_rest = (np.abs(angle - predicted) < limit("ceiling_margin")) & (view["rest_distance"] < limit("rest_distance"))
    arrived = at_rest & (view["predicted_angle"] > limit("ceiling_angle"))
    for layer in view.carrying:
        seen = last_stretch(arrived[:, layer], np.isfinite(angle[:, layer]))
        if seen:
            first, last = seen
            costly = view["predicted_angle"][last, layer] > limit("ceiling_costly")
            yield Sighting(
                layer,
                first,
                last,
                "medium" if costly else "low",
                f"The feedback of {view.layers[layer]} is at {angle[last, layer]:.0f}° to W, which is where its rule "
                f"takes it ({view['predicted_angle'][last, layer]:.0f}°).",
                (evidence(view, "predicted_angle", last, layer, ">", "ceiling_angle"),),
            )


def relaxations(view: View) -> Floats:
    """Return by step and layer how many relaxation times have passed since the first snapshot, Σ Δt / τ."""
    time = view["relaxation_time"]
    passed = np.diff(view.steps)[:, None] / np.where(time[:-1] > 0, time[:-1], np.nan)
    return np.concatenate([np.where(np.isnan(time[:1]), np.nan, 0.0), np.cumsum(passed, axis=0)])


def _median_so_far(values: Floats) -> Floats:
    """Return at each step the median of all finite values up to it, NaN before the first."""
    so_far = (values[: index + 1][np.isfinite(values[: index + 1])] for index in range(len(values)))
    return np.array([np.median(each) if len(each) else np.nan for each in so_far])
