"""Remedies that several kinds of findings suggest: each computes what to change from the run, or declines.

A remedy declines with None where it cannot help; settings that do not fit the rule or the model need no check here,
because `advice.advise` leaves such remedies out.
"""

from __future__ import annotations

import math

import numpy as np

from wtdiag.diagnostics.findings.advice import Case, Remedy, Suggestion, rounded
from wtdiag.diagnostics.findings.instability import SAFE, of_view

_TARGETS = ("amp", "self")  # coefficients in which a fixed point is linear
_PULLS = ("decay", "null", "sparse")


def smaller_feedback_step(case: Case) -> Suggestion | None:
    """Lower the feedback learning rate so far that S would not have exceeded 0.4 before the run broke."""
    table, rate = of_view(case.view), case.rate("feedback_lr")
    largest = float(np.nanmin([math.inf, *table.largest_feedback_lr]))
    scale = float(np.nanmin([math.inf, *table.largest_coefficient_scale]))
    if math.isfinite(largest) and largest < rate / SAFE:
        new = rounded(SAFE * largest)
        layer = case.where if case.layer is not None else table.largest_feedback_lr.idxmin()
        return Suggestion(
            f"Lower the feedback learning rate from {rate:.2g} to {new:g}: the step-size number of {layer} then stays "
            f"near {SAFE:g}.",
            {"feedback_lr": new},
        )
    if scale < 1:
        return Suggestion(f"Scale all of the rule's coefficients by {SAFE * scale:.2g}.")
    return None


def feedback_rate(new: float, effect: str) -> Remedy:
    """Return the remedy that sets the feedback learning rate to a value, with its effect as a clause."""

    def remedy(case: Case) -> Suggestion | None:
        now = case.rate("feedback_lr")
        if not (now > 0 and 0 < new < math.inf) or rounded(new) == now:
            return None
        verb = "Lower" if new < now else "Raise"
        return Suggestion(
            f"{verb} the learning rate of the feedback of {case.where} from {now:.2g} to {rounded(new):g}: {effect}.",
            {"feedback_lr": rounded(new)},
        )

    return remedy


def unit_gain(case: Case) -> Suggestion | None:
    """Divide the coefficients that B* is proportional to by the gain that they lead to."""
    gain = case.typical("predicted_gain")
    targets = {name: case.coefficient(name) for name in _TARGETS if case.coefficient(name)}
    targets = {name: value for name, value in targets.items() if math.isfinite(value)}
    pulls = [case.coefficient(name) for name in _PULLS]
    total = float(np.nansum([pull for pull in pulls if math.isfinite(pull)]))
    if not targets:
        absent = [name for name in _TARGETS if case.coefficient(name) == 0]
        if not absent or not total > 0:
            return None
        return Suggestion(
            f"Give the rule something to aim at: {absent[0]} is zero, so that B only shrinks.",
            {"coefficients": {absent[0]: rounded(total)}},
        )
    if not math.isfinite(gain) or gain == 0 or 0.67 < gain < 1.5:
        return None
    new = {name: rounded(value / gain) for name, value in targets.items()}
    words = " and ".join(f"{name} from {targets[name]:.2g} to {value:g}" for name, value in new.items())
    return Suggestion(
        f"Change {words}, which brings the fixed point of B to the size of W: the gain that the present coefficients "
        f"lead to is {gain:.2g}.",
        {"coefficients": new},
    )


def unit_scale(case: Case) -> Suggestion | None:
    """Bring the initial size of B to that of W."""
    scale, ratio = case.coefficient("scale"), case.typical("norm_ratio", 0)
    if not (scale > 0 and ratio > 0) or 0.67 < ratio < 1.5:
        return None
    new = rounded(scale / ratio)
    return Suggestion(
        f"Begin with feedback of the size of W: change its scale from {scale:.2g} to {new:g}.",
        {"coefficients": {"scale": new}},
    )


def faster_feedback(case: Case) -> Suggestion | None:
    """Raise the feedback learning rate, as far as a step-size number of 0.2 allows it, but at most tenfold."""
    rate = case.rate("feedback_lr")
    worst = float(np.nanmax([-math.inf, *case.view["step_size_number"].ravel()]))
    if not rate > 0 or not case.learns:
        return None
    factor = min(SAFE / 2 / worst, 10.0) if 0 < worst < math.inf else 3.0
    if factor < 1.5:
        return None
    new = rounded(rate * factor)
    limit = f", at which the step-size number reaches {worst * new / rate:.2g}" if worst > 0 else ""
    return Suggestion(
        f"Let the feedback of {case.where} learn faster: raise the feedback learning rate from {rate:.2g} to "
        f"{new:g}{limit}.",
        {"feedback_lr": new},
    )


def stronger_shared_decay(case: Case) -> Suggestion | None:
    """Raise the decay that makes B and W equal where both take the same steps, as under Kolen-Pollack."""
    decay = case.coefficient("decay")
    if case.setting("feedback_optimizer") not in (None, "forward") or any(
        name in case.coefficients for name in (*_TARGETS, "null", "sparse")
    ):
        return None
    if not 0 <= decay < 0.2:
        return None
    return Suggestion(
        f"Raise the decay that W and B share from {decay:.2g} to 0.2: W − B shrinks at its rate.",
        {"coefficients": {"decay": 0.2}},
    )


def feedback_in_every_step(case: Case) -> Suggestion | None:
    """Let B learn in every step, if it learns in alternation."""
    if not case.setting("alternate"):
        return None
    return Suggestion("Let the feedback learn in every step, not in alternation.", {"alternate": 0})


def white_inputs(case: Case) -> Suggestion | None:
    """Let the rule learn from noise, which makes B* parallel to W, in place of the layer's own activations."""
    if case.coefficients.get("inputs") != "activations":
        return None
    return Suggestion(
        "Let the feedback learn from white noise in place of the layer's activations, whose correlations turn its "
        "fixed point away from W.",
        {"coefficients": {"inputs": "noise"}},
    )


def lower_rate(case: Case) -> Suggestion | None:
    """Lower the learning rate of the forward weights to a tenth."""
    rate = case.rate("lr")
    if not rate > 0:
        return None
    new = rounded(rate / 10)
    return Suggestion(f"Lower the learning rate of the forward weights from {rate:.2g} to {new:g}.", {"lr": new})


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
    return Suggestion(f"Train without the noise on updates, whose deviation is {noise:.2g}.", {"update_noise": 0.0})


def averaged_feedback(case: Case) -> Suggestion | None:
    """Lower the feedback learning rate, so that B averages over more steps."""
    rate = case.rate("feedback_lr")
    if not rate > 0:
        return None
    new = rounded(rate / 5)
    return Suggestion(
        f"Lower the feedback learning rate from {rate:.2g} to {new:g}: B then averages over five times as many steps.",
        {"feedback_lr": new},
    )


def more_epochs(case: Case) -> Suggestion | None:
    """Train three times as long."""
    epochs = case.setting("epochs")
    if not isinstance(epochs, int | float) or not epochs > 0:
        return None
    return Suggestion(
        f"Train for longer: {rounded(3 * epochs):g} epochs in place of {epochs:g}.", {"epochs": rounded(3 * epochs)}
    )


def sign_symmetry(case: Case) -> Suggestion | None:
    """Change from fixed feedback to one that has the signs of W, which does not have to align."""
    if case.learns or case.view.moved.any():  # B that moves without learning follows W already
        return None
    return Suggestion("Change to sign symmetry, whose feedback has the signs of W and need not align.", {"rule": "usf"})
