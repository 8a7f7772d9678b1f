"""Learning that is not stable: the step on B is too large, or numbers are no longer finite."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings import remedies
from wtdiag.diagnostics.findings.finding import Evidence
from wtdiag.diagnostics.findings.instability import of_view
from wtdiag.diagnostics.findings.kinds.base import SPOILED, Sighting, blind, evidence, growth, kind, last_stretch
from wtdiag.diagnostics.findings.thresholds import limit


@kind(
    "step-too-large",
    meaning="Along the direction in which the rule pulls hardest, each step on B overshoots the fixed point by more "
    "than the distance that it started from. B grows exponentially until the errors it carries destroy the weights.",
    advice=(remedies.smaller_feedback_step, remedies.guarded, remedies.batch_norm, remedies.lower_rate),
    equation="S = η λmax(H) / (2 (1 + μ)) > 1, with ∂B = H B − target",
    reference="docs/theory.md, for the regularisers of Kunin et al. 2020, arXiv:2003.01513; Polyak 1964, USSR "
    "Computational Mathematics and Mathematical Physics 4(5), for the limit with momentum",
    needs=("step_size_number",),
    effects=("rank-collapse", "sign-flip"),
    effects_below=SPOILED,
)
def step_too_large(view: View) -> Iterator[Sighting]:
    """Find S > 1: of severity high if it lasts or a runaway follows, of severity medium if it passes."""
    number, table = view["step_size_number"], of_view(view)
    for layer, name in enumerate(view.layers):
        above = np.flatnonzero(number[:, layer] > limit("step_size_number"))
        if not len(above):
            continue
        row = table.iloc[layer]
        first, last = int(above[0]), int(above[-1])
        known = np.flatnonzero(~np.isnan(number[:, layer]))
        lasting = last == known[-1] or not math.isnan(row.runaway_step) or not math.isnan(row.collapse_step)
        sound = above[number[above, layer] <= row.step_size_number]  # before the run broke
        worst = int(sound[np.argmax(number[sound, layer])]) if len(sound) else first
        broke = row.collapse_step if not math.isnan(row.collapse_step) else row.runaway_step
        lead = f", {broke - view.steps[first]:.0f} steps before it broke" if broke > view.steps[first] else ""
        grown = f" It has grown by a factor of {row.growth:.2g} since the first snapshot." if row.growth > 1.5 else ""
        yield Sighting(
            layer,
            first,
            last,
            "high" if lasting else "medium",
            f"The feedback of {name} takes steps that are too large to be stable: its step-size number reaches "
            f"{number[worst, layer]:.3g}, and exceeds 1 from step {view.steps[first]} on{lead}.{grown}",
            (
                evidence(view, "step_size_number", worst, layer, ">", "step_size_number"),
                evidence(view, "step_size_number", first, layer, ">", "step_size_number"),
            ),
        )


_NORM = re.compile(r"norm of the (weight|feedback) of (.+)", re.DOTALL)


@kind(
    "divergence",
    meaning="The numbers blew up. Either one of them stopped being finite, and everything computed from it since is "
    "meaningless, or the loss ended far above where it began.",
    advice=(
        remedies.smaller_feedback_step,
        remedies.lower_rate,
        remedies.clipped,
        "Look for the cause in the snapshots before that step.",
    ),
    equation=f"‖W‖, ‖B‖ or the loss is not finite; or L(t) > {limit('loss_growth'):g} L(0) from some t on",
    reference="IEEE 754",
    effects_below=("signal-below-floor", "not-aligning", "inherited-error", "feedback-too-small"),
)
def divergence(view: View) -> Iterator[Sighting]:
    """Find the first number that was not finite, from the run's config, or else from its snapshots or its metrics.

    If all numbers were finite, find a loss that ended far above its first value.
    """
    seen = _in_config(view) or _in_snapshots(view) or _in_metrics(view)
    if seen:
        step, what, layer = seen
        before = int(np.flatnonzero(view.steps <= step)[-1]) if (view.steps <= step).any() else 0
        measure = "loss" if layer is None else "feedback_norm" if "feedback" in what else "forward_norm"
        yield Sighting(
            layer,
            before,
            len(view.steps) - 1,
            "high",
            f"Training diverged: the first number that was not finite was the {what}, at step {step:.0f}."
            if what
            else f"Training diverged after step {step:.0f}.",
            (Evidence(measure, math.nan, math.inf, "<", "1", int(step)),),
        )
    else:
        yield from _risen(view)


def _risen(view: View) -> Iterator[Sighting]:
    """Find a loss that stays far above its first value until the end, for at least three lines of the metrics.

    A network that is right most of the time has not diverged: its loss is large because it is sure of its few errors.
    """
    loss = view.metric("loss")
    loss = loss[np.isfinite(loss)]
    if not len(loss) or not loss.iloc[0] > 0 or view.is_accurate:
        return
    begun, ended = float(loss.iloc[0]), float(loss.iloc[-1])
    above = last_stretch((loss > limit("loss_growth") * begun).to_numpy(), np.ones(len(loss), dtype=bool))
    if above is None or above[1] - above[0] < 2:
        return
    since = float(loss.index[above[0]])
    weights = np.where(blind(view), math.nan, growth(view["forward_norm"]))
    highest = float(np.fmax.reduce(weights))
    layer, grown = None, ""
    if highest > limit("norm_growth"):
        # Of the layers whose weights grew with the loss, the topmost: a fault there shows in all layers below.
        layer = int(np.flatnonzero(weights >= math.sqrt(highest))[-1])
        grown = f", and the weights of {view.layers[layer]} have grown by a factor of {weights[layer]:.3g}"
    yield Sighting(
        layer,
        max(0, int((view.steps < since).sum()) - 1),
        len(view.steps) - 1,
        "high",
        f"The loss ended at {ended:.3g}, which is {ended / begun:.3g} times its first value; it has been above "
        f"{limit('loss_growth'):g} times that value since step {since:.0f}{grown}.",
        (Evidence("loss", ended, limit("loss_growth") * begun, ">", "1", int(loss.index[-1])),),
        (remedies.lower_rate,) if layer is not None else (),
    )


def _in_config(view: View) -> tuple[float, str, int | None] | None:
    step, what = view.diverged or (None, "")
    if step is None:
        return None
    named = _NORM.fullmatch(what)
    layer = view.layers.index(named[2]) if named and named[2] in view.layers else None
    return step, what, layer


def _in_snapshots(view: View) -> tuple[float, str, int | None] | None:
    """Return where the first numbers that are not finite began, from the first snapshot that holds any.

    Such numbers in B spread down to the forward weights of the layers below, and those in W spread up. So the origin
    is the topmost B whose own W is still finite, or else the lowest W whose B is.
    """
    if not (view.has("forward_norm") and view.has("feedback_norm")):
        return None
    forward, feedback = ~np.isfinite(view["forward_norm"]), ~np.isfinite(view["feedback_norm"])
    broken = np.flatnonzero((forward | feedback).any(axis=1))
    if not len(broken):
        return None
    at = int(broken[0])
    step = float(view.steps[at])
    if len(origin := np.flatnonzero(feedback[at] & ~forward[at])):
        return step, f"feedback of {view.layers[origin[-1]]}", int(origin[-1])
    if len(origin := np.flatnonzero(forward[at] & ~feedback[at])):
        return step, f"weight of {view.layers[origin[0]]}", int(origin[0])
    return step, "weight of every layer" if forward[at].all() else "weight of several layers", None


def _in_metrics(view: View) -> tuple[float, str, int | None] | None:
    if not math.isnan(view.broken_loss):
        return view.broken_loss, "loss", None
    return (float(view.steps[-1]), "", None) if view.diverged else None
