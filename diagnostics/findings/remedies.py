"""Remedies that several kinds of findings suggest: each computes what to change from the run, or declines.

A remedy declines with None where it cannot help; settings that do not fit the rule or the model need no check here,
because `advice.advise` leaves such remedies out.
"""

from __future__ import annotations

import math

import numpy as np

from wtdiag.diagnostics.findings.advice import Case, Remedy, Suggestion, rounded, stated
from wtdiag.diagnostics.findings.instability import SAFE
from wtdiag.diagnostics.findings.thresholds import limit

_SMALL = 0.03  # a relative change of W in one step; the largest of a run that learns well is about 0.08
_LEAST = 0.03  # the gain, or its inverse, beyond which no advice rests on it
_MEMORY = 40.0  # steps; with 10 to 25, a convolutional network is 2 to 12 points worse (docs/recipes.md)
_LEAST_DECAY = 1e-3  # of W and B; where W bears less, it is the learning rate that is too high
_TARGETS = ("amp", "self")  # coefficients in which a fixed point is linear
_PULLS = ("decay", "null", "sparse")


def smaller_feedback_step(case: Case) -> Suggestion | None:
    """Lower the feedback learning rate so far that S would have been 0.4 where it first exceeded 1.

    Later values do not count: a step that is unstable makes B, the activations and S itself grow without bound.
    """
    number, rate = case.view["step_size_number"], case.rate("feedback_lr")
    above = np.flatnonzero((number > limit("step_size_number")).any(axis=1))
    if not len(above):
        return None
    layer = int(np.nanargmax(number[above[0]]))
    worst = float(number[above[0], layer])
    if not (rate > 0 and worst < math.inf):
        return Suggestion(f"Scale all of the rule's coefficients by {SAFE / worst:.2g}.") if worst < math.inf else None
    new = rounded(SAFE / worst * rate)
    return Suggestion(
        f"Lower the feedback learning rate from {stated(rate)} to {stated(new)}: the step-size number of "
        f"{case.view.layers[layer]}, the largest when it first exceeded 1, is then {SAFE:g}.",
        {"feedback_lr": new},
    )


def guarded(case: Case) -> Suggestion | None:
    """Let the training itself shorten the steps of B that would be unstable."""
    if case.setting("s_guard"):
        return None
    return Suggestion(
        f"Let training shorten the feedback steps of each layer whose step-size number exceeds {SAFE:g}.",
        {"s_guard": True},
    )


def feedback_rate(new: float, effect: str) -> Remedy:
    """Return the remedy that sets the feedback learning rate to a value, with its effect as a clause."""

    def remedy(case: Case) -> Suggestion | None:
        now = case.rate("feedback_lr")
        if not (now > 0 and 0 < new < math.inf) or rounded(new) == now:
            return None
        verb = "Lower" if new < now else "Raise"
        return Suggestion(
            f"{verb} the learning rate of the feedback of {case.where} from {stated(now)} to {stated(new)}: {effect}.",
            {"feedback_lr": rounded(new)},
        )

    return remedy


def unit_gain(case: Case) -> Suggestion | None:
    """Divide the coefficients that B* is proportional to by the gain that they lead to."""
    gain = case.typical("predicted_gain")
    targets = {name: case.coefficient(name) for name in _TARGETS if case.coefficient(name)}
    targets = {name: value for name, value in targets.items() if math.isfinite(value)}
    total = float(np.nansum([case.coefficient(name) for name in _PULLS]))
    if not targets:
        absent = [name for name in _TARGETS if case.coefficient(name) == 0]
        if not absent or not total > 0:
            return None
        return Suggestion(
            f"Give the rule something to aim at: {absent[0]} is zero, so that B only shrinks.",
            {"coefficients": {absent[0]: rounded(total)}},
        )
    if not _LEAST < abs(gain) < 1 / _LEAST or 0.67 < gain < 1.5:  # of a run that broke, the gain says little
        return None
    # A stronger pull makes B faster too, as far as its step remains stable.
    pulled = {name: case.coefficient(name) for name in _PULLS if case.coefficient(name) > 0}
    stronger = gain > 1 and pulled and worst_step(case) * gain <= SAFE
    old, factor = (pulled, gain) if stronger else (targets, 1 / gain)
    new = {name: rounded(value * factor) for name, value in old.items()}
    words = " and ".join(f"{name} from {stated(old[name])} to {stated(value)}" for name, value in new.items())
    return Suggestion(
        f"Change {words}, which brings the fixed point of B to the size of W: the gain that the present coefficients "
        f"lead to is {gain:.2g}.",
        {"coefficients": new},
    )


def smaller_gain(case: Case) -> Suggestion | None:
    """Bring the gain down to one, if it is above."""
    return None if case.typical("predicted_gain") < 1 else unit_gain(case)


def larger_gain(case: Case) -> Suggestion | None:
    """Bring the gain up to one, if it is below."""
    return None if case.typical("predicted_gain") > 1 else unit_gain(case)


def unit_scale(case: Case) -> Suggestion | None:
    """Bring the initial size of B to that of W."""
    scale, ratio = case.coefficient("scale"), case.typical("norm_ratio", 0)
    if not (scale > 0 and ratio > 0) or 0.67 < ratio < 1.5:
        return None
    new = rounded(scale / ratio)
    return Suggestion(
        f"Begin with feedback of the size of W: change its scale from {stated(scale)} to {stated(new)}.",
        {"coefficients": {"scale": new}},
    )


def smaller_scale(case: Case) -> Suggestion | None:
    """Bring the initial size of B down to that of W, where it is larger."""
    return unit_scale(case) if case.typical("norm_ratio", 0) > 1 else None


def faster_feedback(case: Case) -> Suggestion | None:
    """Raise the feedback learning rate so that B relaxes twenty times in a run, as far as S remains below 0.2.

    Where S is not known, as under Adam, threefold.
    """
    rate, worst = case.rate("feedback_lr"), worst_step(case)
    if not rate > 0 or not case.learns:
        return None
    time, steps = float(np.nanmax([0.0, *case.view["relaxation_time"][-1]])), float(case.view.steps[-1])
    factor = min(SAFE / 2 / worst, max(3.0, 20 * time / steps) if steps else 3.0) if worst > 0 else 3.0
    if not 1.5 <= factor < math.inf:
        return None
    new = rounded(rate * factor)
    at = f", at which the step-size number reaches {worst * new / rate:.2g}" if worst > 0 else ""
    return Suggestion(
        f"Let the feedback learn faster: raise its learning rate, in all layers, from {stated(rate)} to "
        f"{stated(new)}{at}.",
        {"feedback_lr": new},
    )


def worst_step(case: Case) -> float:
    """Return the largest step-size number of any layer and snapshot; 0 if none is known."""
    return float(np.nanmax([0.0, *case.view["step_size_number"].ravel()]))


def stronger_shared_decay(case: Case) -> Suggestion | None:
    """Raise the decay that makes B and W equal where both take the same steps, as far as W does not forget too soon."""
    decay, most = case.coefficient("decay"), _largest_shared_decay(case)
    if not decay >= 0 or not 1.5 * decay < most < math.inf:
        return None
    return Suggestion(
        f"Raise the decay that W and B share from {stated(decay)} to {stated(most)}: W − B shrinks at its rate, and W "
        f"still keeps what it learned in the last {_MEMORY:g} steps.",
        {"coefficients": {"decay": rounded(most)}},
    )


def weaker_shared_decay(case: Case) -> Suggestion | None:
    """Lower the decay that W and B share where W forgets what it learned within a few steps."""
    decay, most = case.coefficient("decay"), _largest_shared_decay(case)
    if not _LEAST_DECAY < 1.5 * most < decay:
        return None
    return Suggestion(
        f"Lower the decay that W and B share from {stated(decay)} to {stated(most)}: at the highest rate, W now "
        f"forgets what it learned within {_MEMORY * most / decay:.2g} steps.",
        {"coefficients": {"decay": rounded(most)}},
    )


def slower_weights(case: Case) -> Suggestion | None:
    """Lower the learning rate of the forward weights, which gives B time if it has a rate of its own."""
    return None if _decays_with_w(case) else lower_rate(case)


def _decays_with_w(case: Case) -> bool:
    """Whether B takes the steps of W, with their rate and decay, as under Kolen-Pollack."""
    # The feedback of other rules decays without W: where it has a target, and where it projects the output's error.
    alone = any(name in case.coefficients for name in (*_TARGETS, "null", "sparse", "projection"))
    shared = case.setting("feedback_optimizer") in (None, "forward")
    return "decay" in case.coefficients and shared and not alone


def _largest_shared_decay(case: Case) -> float:
    """Return the decay of W and B at which W forgets within `_MEMORY` steps at the highest rate; NaN if not known.

    Under SGD with momentum μ, W forgets within (1 − μ) / (η λ) steps.
    """
    if not _decays_with_w(case):
        return math.nan
    times = case.view["relaxation_time"]
    times = times[np.isfinite(times) & (times > 0)]
    if case.coefficient("decay") > 0 and len(times):
        return case.coefficient("decay") * float(times.min()) / _MEMORY
    rate, momentum = case.rate("lr"), case.setting("momentum")
    if case.setting("optimizer") != "sgd" or not rate > 0 or not isinstance(momentum, int | float):
        return math.nan
    return (1 - momentum) / (rate * _MEMORY)


def feedback_in_every_step(case: Case) -> Suggestion | None:
    """Let B learn in every step, if it learns in alternation."""
    if not case.setting("alternate"):
        return None
    return Suggestion("Let the feedback learn in every step, not in alternation.", {"alternate": 0})


def white_inputs(case: Case) -> Suggestion | None:
    """Let the rule learn from noise, which makes B* parallel to W, in place of the layer's own activations."""
    reads = any(case.coefficient(name) for name in ("amp", "null", "sparse") if name in case.coefficients)
    if case.coefficients.get("inputs") != "activations" or not reads:
        return None
    return Suggestion(
        "Let the feedback learn from white noise in place of the layer's activations, whose correlations turn its "
        "fixed point away from W.",
        {"coefficients": {"inputs": "noise"}},
    )


def white_inputs_at_ceiling(case: Case) -> Suggestion | None:
    """Let the rule learn from noise if its own fixed point is far from W, so that longer training cannot help B."""
    return white_inputs(case) if case.typical("predicted_angle") > limit("ceiling_angle") else None


def higher_rate(case: Case) -> Suggestion | None:
    """Raise the learning rate of the forward weights where no step, not even the largest, changed them by much."""
    rate, update = case.rate("lr"), case.view["relative_update"]
    known = update[~np.isnan(update).all(axis=1)]  # a run without steps has no updates
    largest = float(np.nanmax([0.0, *np.nanmedian(known, axis=1)]))
    if not (rate > 0 and 0 < largest < _SMALL):
        return None
    new = rounded(rate * min(2 * _SMALL / largest, 30))
    return Suggestion(
        f"Raise the learning rate of the forward weights from {stated(rate)} to {stated(new)}: in a typical layer, no "
        f"measured step changed them by more than {100 * largest:.2g} %.",
        {"lr": new},
    )


def lower_rate(case: Case) -> Suggestion | None:
    """Lower the learning rate of the forward weights to a tenth, or below the rate that it had reached in a warm-up."""
    rate = case.rate("lr")
    if not rate > 0:
        return None
    reached = float(case.view.metric("lr").max())
    new = rounded(min(rate / 10, reached / 2) if reached > 0 else rate / 10)
    return Suggestion(
        f"Lower the learning rate of the forward weights from {stated(rate)} to {stated(new)}.", {"lr": new}
    )


def clipped(case: Case) -> Suggestion | None:
    """Clip the gradient of the forward weights."""
    if case.setting("clip_norm") is not None:
        return None
    return Suggestion("Clip the gradient of the forward weights to a norm of 1.", {"clip_norm": 1.0})


def batch_norm(case: Case) -> Suggestion | None:
    """Use batch norm, where it is off."""
    if case.setting("batch_norm") is not False:
        return None
    return Suggestion("Use batch norm, which keeps activations in every layer at one size.", {"batch_norm": True})


def weight_decay(case: Case) -> Suggestion | None:
    """Give the forward weights decay, where they have none."""
    if case.setting("weight_decay") not in (0, 0.0):
        return None
    return Suggestion("Give the forward weights decay, which limits their growth.", {"weight_decay": 1e-3})


def without_noise(case: Case) -> Suggestion | None:
    """Switch off the noise on updates."""
    noise = case.setting("update_noise")
    if not isinstance(noise, int | float) or not noise > 0:
        return None
    return Suggestion(f"Train without the noise on updates, whose deviation is {stated(noise)}.", {"update_noise": 0.0})


def averaged_feedback(case: Case) -> Suggestion | None:
    """Lower the feedback learning rate, so that B averages over more steps."""
    rate = case.rate("feedback_lr")
    if not rate > 0:
        return None
    new = rounded(rate / 5)
    return Suggestion(
        f"Lower the feedback learning rate from {stated(rate)} to {stated(new)}: B then averages over five times as "
        "many steps.",
        {"feedback_lr": new},
    )


def more_epochs(case: Case) -> Suggestion | None:
    """Train three times as long."""
    epochs = case.setting("epochs")
    if not isinstance(epochs, int | float) or not epochs > 0:
        return None
    return Suggestion(
        f"Train for longer: {stated(3 * epochs)} epochs in place of {epochs:g}.", {"epochs": rounded(3 * epochs)}
    )


def sign_symmetry(case: Case) -> Suggestion | None:
    """Change from fixed feedback to one that has the signs of W, which does not have to align."""
    if case.learns or case.view.moved.any():  # B that moves without learning follows W already
        return None
    return Suggestion("Change to sign symmetry, whose feedback has the signs of W and need not align.", {"rule": "usf"})
