"""Learned feedback, compared with where its rule takes it: frozen, too slow, disturbed, or at rest."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import Floats, Mask, View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.advice import Case, Suggestion
from wtdiag.diagnostics.findings.kinds.base import Sighting, evidence, kind, last_stretch, of_others
from wtdiag.diagnostics.findings.severity import of_hampered_learning
from wtdiag.diagnostics.findings.thresholds import limit


def held_by_the_optimiser(case: Case) -> Suggestion:
    """Let the optimiser train B."""
    if case.is_foreign:
        return Suggestion("Check that the code that trains B reaches this layer, and that nothing resets it.")
    return Suggestion(
        "Check that the optimiser holds this layer's `feedback` parameter, that the parameter requires a gradient, "
        "and that nothing resets it. `wtdiag train` takes care of all this; in a loop of your own, give the optimiser "
        "every parameter named feedback."
    )


@kind(
    "frozen-feedback",
    meaning="The rule learns its feedback weights, yet in this layer they do not change at all while the forward "
    "weights do. The errors that the layer sends are at best those of fixed random feedback.",
    advice=(held_by_the_optimiser,),
    equation="B(t + 1) = B(t), bitwise",
    reference="Lillicrap et al. 2016, Nature Communications 7:13276, for what fixed feedback can do",
    needs=("feedback_norm", "forward_norm"),
    effects=("not-aligning", "noisy-feedback", "feedback-too-slow", "feedback-too-small", "feedback-too-large",
            "sign-flip", "step-too-large", "rank-collapse"),
    effects_below=("inherited-error",),
)  # fmt: skip
def frozen_feedback(view: View) -> Iterator[Sighting]:
    """Find B bitwise the same over several snapshots, while W changes and other layers' B do, or none ever did."""
    norm, forward = view["feedback_norm"], view["forward_norm"]
    moved = view.moved
    w_moved = (forward[1:] != forward[:-1]) & np.isfinite(forward[1:])
    nowhere = not moved.any() and bool(np.isfinite(view["rest_distance"]).any())  # although a law says where B goes
    for layer in np.flatnonzero(view.carries & view.learned).tolist():
        others = nowhere | np.delete(moved & view.learned, layer, axis=1).any(axis=1)
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
                f"The feedback of {name} has not changed since step {view.steps[first]}, "
                + ("and neither has that of any other layer." if nowhere else "while that of other layers learns."),
                (evidence(view, "feedback_norm", last, layer, "<", float(norm[first, layer])),),
            )


@kind(
    "feedback-too-slow",
    meaning="W moves on before B has followed it. Feedback that lags fails even if its rule would take it to the right "
    "place.",
    advice=(
        remedies.feedback_in_every_step,
        remedies.unit_gain,
        remedies.faster_feedback,
        remedies.white_inputs,
        remedies.stronger_shared_decay,
        remedies.weaker_shared_decay,
        remedies.slower_weights,
        remedies.more_epochs,
    ),
    equation="τ η_W ‖∂L/∂W‖ / ‖W‖, with τ = 1 / (η λ) the relaxation time of B",
    reference="docs/theory.md, for the regularisers of Kunin et al. 2020, arXiv:2003.01513",
    needs=("rest_distance", "relaxation_time", "tracking_lag"),
    effects=("not-aligning", "sign-flip", "noisy-feedback", "feedback-too-small", "feedback-too-large"),
    effects_below=("inherited-error",),
)
def feedback_too_slow(view: View) -> Iterator[Sighting]:
    """Find B far from rest at the end, because it had no time, or because W moves too much within a relaxation time.

    Where that holds for half of the layers or more, it is the rule that is slow, which is one finding on the network; a
    layer then stands out only if its own relaxation time does.
    """
    rest, lag, elapsed, astray = view["rest_distance"], view["tracking_lag"], relaxations(view), driven(view)
    found: list[tuple[int, int, int]] = []
    for layer in view.carrying:
        typical = _median_so_far(lag[:, layer])
        slow = (typical > limit("tracking_lag")) | (elapsed[:, layer] < limit("relaxations"))
        away = (rest[:, layer] > limit("rest_distance")) & slow & ~astray[:, layer]
        seen = last_stretch(away, np.isfinite(rest[:, layer]))
        if not seen or seen[1] == 0 or not (lag[:, layer] > limit("tracking_lag")).any():
            continue
        found.append((layer, *seen))
    time = [_median(column) for column in view["relaxation_time"].T]
    learning = [layer for layer in view.carrying if np.isfinite(rest[:, layer]).any()]
    common = 1 < len(found) >= len(learning) / 2
    all_over: list[tuple[int, int, int]] = []
    for layer, first, last in found:
        others = _median(np.array([time[other] for other in learning if other != layer]))
        if common and not time[layer] > limit("slow_excess") * others:
            all_over.append((layer, first, last))
            continue
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
    if all_over:
        farthest, _, last = max(all_over, key=lambda each: rest[each[2], each[0]])
        yield Sighting(
            None,
            min(first for _, first, _ in all_over),
            last,
            of_hampered_learning(view),
            f"The feedback follows too slowly in {len(all_over)} of {len(learning)} layers: at step {view.steps[last]} "
            f"that of {view.layers[farthest]} is still {100 * rest[last, farthest]:.0f} % away from its fixed point.",
            (evidence(view, "rest_distance", last, farthest, ">", "rest_distance"),),
        )


@kind(
    "noisy-feedback",
    meaning="B is not where its rule takes it, and not for lack of time: either it has had all the time that it needs, "
    "or it is where the rule cannot have taken it. Something other than the rule moves it, and the errors that it "
    "carries are just as noisy.",
    advice=(
        remedies.without_noise,
        remedies.averaged_feedback,
        "If the angle is far above what noise explains, look for code that changes `feedback` outside the optimiser.",
    ),
    equation="‖B − B*‖ / ‖B*‖ at rest; variance per entry s² / (r (2 − r)), r = η λ",
    reference="docs/theory.md, for the regularisers of Kunin et al. 2020, arXiv:2003.01513",
    needs=("rest_distance",),
    effects=("not-aligning", "sign-flip", "feedback-too-large", "feedback-too-slow", "rank-collapse"),
    effects_below=("inherited-error",),
)
def noisy_feedback(view: View) -> Iterator[Sighting]:
    """Find B where its rule cannot take it, B far from rest although it relaxes fast, or noise that alone turns it far.

    A rule that is stable takes B from where it began towards B*, so B never becomes much larger than both.
    """
    rest, lag, elapsed = view["rest_distance"], view["tracking_lag"], relaxations(view)
    noise, astray = view["predicted_noise_angle"], driven(view)
    for layer in view.carrying:
        name = view.layers[layer]
        known = np.isfinite(rest[:, layer])
        settled = (elapsed[:, layer] > limit("settled")) & ~(_median_so_far(lag[:, layer]) > limit("tracking_lag"))
        expected = np.tan(np.radians(np.where(np.isfinite(noise[:, layer]), noise[:, layer], 0.0)))
        away = (rest[:, layer] > limit("disturbance") + 2 * expected) & settled
        beyond = last_stretch(astray[:, layer], known)
        if seen := beyond or last_stretch(away, known):
            first, last = seen
            why = (
                "which is further than its rule can have taken it"
                if beyond
                else f"after {elapsed[last, layer]:.0f} relaxation times"
            )
            yield Sighting(
                layer,
                first,
                last,
                of_hampered_learning(view),
                f"The feedback of {name} is {100 * rest[last, layer]:.0f} % away from its fixed point at step "
                f"{view.steps[last]}, {why}: something disturbs it.",
                (evidence(view, "rest_distance", last, layer, ">", "driven" if beyond else "disturbance"),),
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


def driven(view: View) -> Mask:
    """Return by step and layer whether B is larger than a stable rule can have made it.

    The law is a contraction towards B*, so that ‖B‖ stays below the largest of ‖B(0)‖ and of all ‖B*‖ so far, up to a
    factor for parts of B that move at different speeds. Where W shrank, that says little, and then B is held against
    its own first distance and that of the other layers. Not known without a law, and not asked where S > 1.
    """
    norm, angle = view["feedback_norm"], view["predicted_angle"]
    point = np.abs(view["predicted_gain"]) * view["forward_norm"] / np.maximum(np.cos(np.radians(angle)), 1e-3)
    reached = np.fmax.accumulate(np.fmax(point, norm[:1]), axis=0)
    unstable = np.maximum.accumulate(view["step_size_number"] > limit("step_size_number"), axis=0)
    rest = view["rest_distance"]
    first = np.take_along_axis(rest, np.isfinite(rest).argmax(axis=0)[None], axis=0)
    far = (norm > limit("driven") * reached) | (rest > limit("driven") * np.fmax(first, of_others(rest)))
    return np.asarray(far & (rest > limit("driven")) & np.isfinite(point) & ~unstable)


def jumping(view: View) -> Mask:
    """Return by step and layer whether a step of Adam on B has been larger than B*; SGD has no travel time."""
    large = (view["relative_step"] > limit("relative_step")) & np.isfinite(view["travel_time"])
    return np.asarray(np.maximum.accumulate(large, axis=0))


def relaxations(view: View) -> Floats:
    """Return by step and layer how many relaxation times have passed since the first snapshot, Σ Δt / τ."""
    time = view["relaxation_time"]
    passed = np.diff(view.steps)[:, None] / np.where(time[:-1] > 0, time[:-1], np.nan)
    return np.concatenate([np.where(np.isnan(time[:1]), np.nan, 0.0), np.cumsum(passed, axis=0)])


def _median_so_far(values: Floats) -> Floats:
    """Return at each step the median of all finite values up to it, NaN before the first."""
    return np.array([_median(values[: index + 1]) for index in range(len(values))])


def _median(values: Floats) -> float:
    """Return the median of all finite values, NaN if there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan
