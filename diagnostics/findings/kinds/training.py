"""How far training has come: too short, without any effect, or behind another rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from wtdiag.diagnostics.analysis.chance import DEVIATIONS
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.advice import Case, Suggestion
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.kinds.base import RESULT, TIME, Sighting, kind
from wtdiag.diagnostics.findings.thresholds import limit

_FEWEST = 6  # values to which a line is fitted
_MOST_EPOCHS = 1e6  # that a config may name and be believed
_BATCHES = 20  # at the end, whose mean accuracy is told
_FITTED = 0.2  # of the way from chance to 1: a network that goes so far on training batches has learned from them
_EARLY = 0.5  # accuracy below which curves still become steeper, so that a power law foretells too little
_LEAST, _MOST = 0.5, 1.5  # of what is predicted: what training twice as long adds to an early and to a late accuracy


class Doubling(NamedTuple):
    """What training twice as long is predicted to bring.

    Attributes
    ----------
    measure : str
        "accuracy" or "loss", of training batches.
    half, end : float
        Its value when half of the training was done, and at the end, by the fitted line.
    deviations : float
        The change between the two over its standard error, positive if it is an improvement.
    gain, error : float
        The improvement that the next doubling is predicted to bring, and its standard error.
    """

    measure: str
    half: float
    end: float
    deviations: float
    gain: float
    error: float


def doubling(view: View) -> Doubling | None:
    r"""Return what training twice as long is predicted to bring, None if too little was logged to tell.

    The amount of training is :math:`u = \sum_t \eta_t`, not the number of steps: a schedule that ends at a rate of 0
    makes any curve flat in time. With :math:`e` the share of errors (or the loss), a line is fitted to :math:`e` over
    :math:`\log_2 u` in the last doubling of :math:`u`, from :math:`u_T / 2` to :math:`u_T`. The next doubling is taken
    to shrink :math:`e` by the same factor :math:`e(u_T) / e(u_T / 2)`, a power law, which cannot promise more than
    there is to gain. Of young networks, whose curves still become steeper, this foretells too little.
    """
    measure = "accuracy" if len(view.logged("accuracy")) >= _FEWEST else "loss"
    values = view.logged(measure)
    rates = view.logged("lr").reindex(values.index)
    known = bool(np.isfinite(rates).all()) and bool((rates >= 0).all()) and bool((rates > 0).any())
    amount = np.cumsum(rates.to_numpy() if known else np.ones(len(values)))
    if not len(amount):
        return None
    last = amount >= amount[-1] / 2
    x, y = np.log2(amount[last] / amount[-1]), values.to_numpy()[last]
    if len(y) < _FEWEST:
        return None
    with np.errstate(all="ignore"):
        (slope, end), covariance = np.polyfit(x, y, 1, cov=True)
    improves = slope if measure == "accuracy" else -slope
    deviation = math.sqrt(max(float(covariance[0, 0]), 1e-18))
    now = max(1 - end if measure == "accuracy" else end, 0.0)  # what is left to improve
    before = now + improves
    gain, sensitivity = (now * (1 - now / before), (now / before) ** 2) if before > now else (0.0, 0.0)
    return Doubling(
        measure, float(end - slope), float(end), float(improves) / deviation, float(gain), sensitivity * deviation
    )


def longer(case: Case) -> Suggestion:
    """Train twice as long, with the schedule stretched over it, or for so many steps that something can be told."""
    times = max(2, math.ceil(limit("fewest_steps") / max(1, _steps(case.view))))
    epochs = case.setting("epochs")
    if isinstance(epochs, bool) or not isinstance(epochs, int | float) or not 0 < epochs < _MOST_EPOCHS:
        return Suggestion(f"Train for {times} times as many steps.")
    more = round(times * epochs, 6)
    return Suggestion(f"Train for {more:g} epochs in place of {epochs:g}.", {"epochs": more})


@kind(
    "undertrained",
    meaning="The network was still learning when training ended, so its accuracy says little about its rule: networks "
    "learn more slowly by rules that carry worse errors.",
    advice=(remedies.white_inputs_at_ceiling, remedies.weaker_shared_decay, remedies.higher_rate, longer),
    equation="e(2u) = e(u) · e(u) / e(u/2), with e the share of errors and u = Σ η",
    reference="Hestness et al. 2017, arXiv:1712.00409, for learning curves that are power laws; wtdiag, for u",
    order=TIME,
)
def undertrained(view: View) -> Iterator[Sighting]:
    """Find an accuracy that still rises over the last doubling of the training by enough to matter, or too few steps.

    Where evaluations have not improved in the second half of the training, more of it would only fit the training set.
    """
    if view.config.get("status") in ("running", "diverged") or not math.isnan(view.collapse):
        return
    last = len(view.steps) - 1
    steps = _steps(view)
    twice = _twice(view, steps)
    if steps < limit("fewest_steps"):
        yield Sighting(
            None,
            0,
            last,
            "medium",
            f"Training took {steps} step{'s' if steps != 1 else ''}, too few to tell anything about its rule.",
            (Evidence("step", float(steps), limit("fewest_steps"), "<", "step", steps),),
        )
        return
    found = doubling(view)
    if found is None or found.deviations < DEVIATIONS or not _still_better(view):
        return
    if found.measure == "accuracy":
        if found.gain < limit("gain"):
            return
        text = (
            f"Training was too short: over its last doubling, accuracy on training batches rose from "
            f"{100 * found.half:.0f} % to {100 * found.end:.0f} %. Training twice as long{twice} is predicted to add "
            f"{_foretold(found)}"
        )
        gained = Evidence("predicted_accuracy_gain", 100 * found.gain, 100 * limit("gain"), ">", "points", steps)
    else:
        if found.gain < limit("loss_gain"):
            return
        text = (
            f"Training was too short: over its last doubling, the loss on training batches fell from {found.half:.3g} "
            f"to {found.end:.3g}. Training twice as long{twice} is predicted to lower it by about {found.gain:.2g}"
        )
        gained = Evidence("predicted_loss_gain", found.gain, limit("loss_gain"), ">", "1", steps)
    relation = ">" if found.measure == "accuracy" else "<"
    change = Evidence(found.measure, found.end, found.half, relation, "1", steps)
    costly = found.measure == "accuracy" and (found.end < _EARLY or found.gain > limit("gain_costly"))
    yield Sighting(None, 0, last, "medium" if costly else "low", f"{text}{_turning(view)}.", (gained, change))


def backprop_first(case: Case) -> Suggestion:
    """Train by backprop, which tells whether the feedback is to blame; of a run by backprop, that is known."""
    if case.view.rule == "bp":
        return Suggestion(
            "The cause is not the feedback, because this is backprop: look at the learning rate, the data and the "
            "network, or train longer."
        )
    how = "by --rule bp" if case.accepts is not None else "by backprop"
    return Suggestion(
        f"Train {how} with the same settings: if that fails too, the cause is not the feedback, but the learning rate, "
        "the data or the network."
    )


def longer_than_backprop(case: Case) -> Suggestion | None:
    """Train longer, if backprop learns in the same time."""
    if case.view.rule == "bp":
        return None
    return Suggestion("If backprop learns, train this rule longer, and look at the angles of the error.")


def own_rates(case: Case) -> Suggestion:
    """Search the rule's own coefficients and rates."""
    by = " by `wtdiag sweep`" if case.accepts is not None else ""
    return Suggestion(
        f"Search the rule's own coefficients and rates{by}; a rate that suits backprop need not suit the rule."
    )


@kind(
    "learned-nothing",
    meaning="After training, the network does no better than one that was never trained. What was measured of its "
    "feedback describes a network that did not learn.",
    advice=(
        remedies.weaker_shared_decay,
        backprop_first,
        longer_than_backprop,
    ),
    equation="(accuracy − chance) / (1 − chance), Cohen's κ",
    reference="Cohen 1960, Educational and Psychological Measurement 20(1)",
    order=RESULT,
)
def learned_nothing(view: View) -> Iterator[Sighting]:
    """Find an accuracy at chance, or where no accuracy or no chance level is known, a loss that did not fall."""
    if view.config.get("status") in ("running", "diverged") or not math.isnan(view.collapse):
        return
    last, here = len(view.steps) - 1, view.accuracy
    if here.at_chance:
        # Batches may show what an evaluation does not, above all while batch norm's running averages lag behind.
        batches = view.logged("accuracy")
        here_too = here.on == "training" or batches.empty
        reached = math.nan if here_too else float(np.mean(batches.iloc[-_BATCHES:]))
        fits = (reached - here.chance) / (1 - here.chance) > _FITTED
        shown = f" that shows on {here.on} examples" if fits else ""
        trained = f", while its last training batches were right in {100 * reached:.0f} %" if fits else ""
        yield Sighting(
            None,
            0,
            last,
            "high",
            f"The network has learned nothing{shown}: its {here.on} accuracy is {100 * here.value:.1f} % at step "
            f"{here.step:.0f}, where {100 * here.chance:.1f} % is chance{trained}.",
            (Evidence(_column(here.on), here.value, here.chance + limit("learned") * (1 - here.chance), "<", "1",
                      int(here.step)),),
        )  # fmt: skip
    elif math.isnan(here.skill):
        loss = view.metric("loss").dropna()
        if len(loss) >= 10 and (ended := float(np.median(loss.iloc[-5:]))) > (begun := float(np.median(loss.iloc[:3]))):
            yield Sighting(
                None,
                0,
                last,
                "high",
                f"The network has learned nothing: its loss on training batches began at {begun:.3g} and ended at "
                f"{ended:.3g}.",
                (Evidence("loss", ended, begun, ">", "1", int(loss.index[-1])),),
            )


@kind(
    "behind-reference",
    meaning="With this rule the network reached less than with the other in the same training, and no fault of its "
    "feedback was found that explains it.",
    advice=(
        remedies.weaker_shared_decay,
        "Look at where the error signal turns, layer by layer.",
        own_rates,
    ),
    equation="accuracy of the reference run − accuracy of the run",
    reference="Bartunov et al. 2018, arXiv:1807.04587, for the comparison of rules under their own best settings",
    order=RESULT,
)
def behind_reference(view: View) -> Iterator[Sighting]:
    """Find an accuracy below that of the reference run."""
    here, gap = view.accuracy, view.accuracy.gap
    if here.reference is not None and gap > limit("behind"):
        yield Sighting(
            None,
            0,
            len(view.steps) - 1,
            "medium" if gap > limit("behind_costly") else "low",
            f"The {here.on} accuracy of {100 * here.value:.1f} % is {100 * gap:.1f} points below that of "
            f"{here.reference.called} ({here.reference.name}).",
            (Evidence(_column(here.on), here.value, here.reference.accuracy - limit("behind"), "<", "1",
                      int(here.step)),),
        )  # fmt: skip


def _column(on: str) -> str:
    return "accuracy" if on == "training" else f"{on}_accuracy"


def promise(found: Doubling) -> tuple[float, float]:
    """Return the least and the most accuracy that training twice as long is said to add; infinity for no bound."""
    if found.end < _EARLY:
        return _LEAST * found.gain, math.inf
    return 0.0, min(_MOST * (found.gain + 2 * found.error), 1 - found.end)


def _foretold(found: Doubling) -> str:
    least, most = (100 * each for each in promise(found))
    if math.isinf(most):
        return f"at least {least:.0f} points"
    return f"about {100 * found.gain:.0f} points, and at most {most:.0f}"


def _steps(view: View) -> int:
    """Return the step at which training ended, as far as it was logged or recorded."""
    return int(max([*view.metric("loss").index[-1:], view.steps[-1]]))


def _twice(view: View, steps: int) -> str:
    settings = view.config.get("settings")
    epochs = settings.get("epochs") if isinstance(settings, dict) else None
    if isinstance(epochs, int | float) and not isinstance(epochs, bool) and 0 < epochs < _MOST_EPOCHS:
        return f" (--epochs {2 * epochs:g})"
    return f" ({2 * steps} steps)"


def _still_better(view: View) -> bool:
    """Return whether an evaluation in the second half beat all of the first half; true if there are fewer than four."""
    tested = view.evaluations("accuracy")
    if len(tested) < 4:
        return True
    first = tested.index <= tested.index[-1] / 2
    return not first.any() or bool(tested[~first].max() > tested[first].max())


def _turning(view: View) -> str:
    """Return a clause on how fast B turns towards W at the end, if it turns by at least a degree in the second half."""
    epoch, angle = view.metric("epoch").dropna(), np.where(view.compared, view["weight_angle"], np.nan)
    late = np.flatnonzero(np.isfinite(angle).any(axis=1) & (view.steps >= view.steps[-1] / 2))
    if len(late) < 2 or epoch.empty or not epoch.iloc[-1] > 0:
        return ""
    mean = np.nanmean(angle[late], axis=1)
    turned = mean[0] - mean[-1]
    epochs = (view.steps[late[-1]] - view.steps[late[0]]) * float(epoch.iloc[-1]) / float(epoch.index[-1])
    if turned < 1 or not epochs > 0:
        return ""
    return f"; the feedback still turned towards the weights, by {turned / epochs:.2g}° an epoch"
