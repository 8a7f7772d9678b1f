"""Sentences on a run, computed from its facts and measures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.chance import DEVIATIONS, IN_WORDS
from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.diagnostics.analysis.reading import meaningful
from wtdiag.reports.document.content import Number, Numbers
from wtdiag.reports.figures.style import capital, number, percent, sentence, short
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.figure_tables import degrees, formatter
from wtdiag.reports.run.sources import Source


def outcome(run: Facts) -> str:
    """State the result of a run in one sentence.

    Parts for which the run has no numbers are left out. If the angles and the accuracy come from different steps, both
    steps are stated.
    """
    parts = []
    if run.status == "diverged":
        parts.append(_divergence(run))
    at = f"at step {run.step} " if _apart(run) else ""
    if np.isfinite(run.test_accuracy):
        last = "last " if run.status == "diverged" else ""
        when = f" at step {run.test_step:.0f}" if at else ""
        parts.append(f"{last}{run.tested_on} accuracy {percent(run.test_accuracy)}{when}")
    if np.isfinite(run.weight_angle) and run.rule != "bp":
        parts.append(f"{at}feedback on average {degrees(run.weight_angle)} from the forward weights")
    if np.isfinite(run.error_angle) and run.rule != "bp":
        parts.append(f"{at}the {run.first}'s error {degrees(run.error_angle)} from exact backpropagation")
    said = (", ".join(parts) or "no accuracy and no angle were recorded") + "."
    return f"{run.rule}: {said}" if run.rule != "unknown" else capital(said)


def title(source: Source, run: Facts) -> str:
    """Return the rule, the network, the data, the seed, the outcome and the date of a run, as far as they are known."""
    settings = source.settings
    network = settings.get("model")
    if network and isinstance(settings.get("depth"), int):
        network = f"{network} of depth {settings['depth']}"
    on = " on ".join(str(part) for part in (network, settings.get("data")) if part)
    rule = run.rule if run.rule != "unknown" else source.name
    seed = f"seed {settings['seed']}" if isinstance(settings.get("seed"), int) else ""
    came = _divergence(run) if run.status == "diverged" else ""
    if not came and np.isfinite(run.compared.value):
        came = f"{run.compared.on} accuracy {percent(run.compared.value)}"
    what = short(", ".join(filter(None, (rule, on, seed))), 120)
    return ": ".join(filter(None, (what, ", ".join(filter(None, (came, source.date))))))


def symbols(source: Source) -> str:
    """Explain W and B, which carry the whole report, to a reader who meets them for the first time."""
    said = "In every layer, W denotes the forward weights, which carry activity from the input to the output. "
    if source.is_backprop:
        return said + (
            "Backpropagation sends the error down through the transpose of these same weights. There is no B of its "
            "own, so that this report has no angles between B and W to show."
        )
    return said + (
        "The error travels down through the feedback weights B, where backpropagation would use the transpose of W. "
        "The closer the direction of B is to that of W, the closer the error is to that of backpropagation: an angle "
        "of 0° between them is backpropagation, and 90° is what unrelated weights have."
    )


def alone(source: Source) -> str:
    """Say that one run is one seed; nothing if the run has no seed."""
    seed = source.settings.get("seed")
    if not isinstance(seed, int):
        return ""
    return (
        f"This is one run with one seed ({seed}), so that nothing here tells how much another seed would change; runs "
        "with several seeds are compared by `wtdiag compare`."
    )


def sentences(run: Facts) -> list[str]:
    """State what happened: the outcome, the alignment of the weights, the alignment of the error signal."""
    of_feedback = () if run.rule == "bp" else (_weights(run), _error(run))
    return [text for text in (_ending(run), *of_feedback) if text]


def glance(run: Facts) -> Numbers:
    """Return the few numbers that a reader sees first, without those that the run lacks."""
    at = f"at step {run.step}; " if _apart(run) else ""
    rest = "; the rest keeps backprop" if run.converted < 1 else ""
    numbers: tuple[tuple[float, Callable[[float], str], str, str], ...] = (
        (run.compared.value, percent, f"{run.compared.on} accuracy", _accuracy_note(run)),
    )
    of_feedback = (
        (
            run.weight_angle,
            degrees,
            "weight angle",
            f"{at}mean of {run.measured} layers; {degrees(run.chance)} by chance",
        ),
        (run.error_angle, degrees, f"error angle, {run.first}", f"{at}0° is backpropagation; 90° is chance"),
        (run.norm_ratio, number, "norm ratio ‖B‖/‖W‖", f"{at}geometric mean over the layers"),
        (run.largest_s, number, "largest step-size number S", f"in {short(run.largest_s_layer)}; unstable above 1"),
        (run.converted, percent, "weights converted", f"share of all weight entries{rest}"),
    )
    numbers += () if run.rule == "bp" else of_feedback
    shown = [Number(label, show(value), note) for value, show, label, note in numbers if np.isfinite(value)]
    return Numbers(tuple(shown))


def _accuracy_note(run: Facts) -> str:
    here = run.compared
    parts = [f"at step {here.step:.0f}", f"{percent(here.chance)} by chance" if np.isfinite(here.chance) else ""]
    if here.reference is not None and here.reference.on == here.on:
        parts.append(f"{percent(here.reference.accuracy)} by {here.reference.called}")
    return "; ".join(filter(None, parts))


def trend(analysis: xr.Dataset, measure: str) -> str:
    """State where a measure started, where it ended and in which layers it is extreme."""
    index = last_measured(analysis)
    values = analysis[measure].transpose("step", "layer").values.astype(float)
    values = np.where(meaningful(analysis, measure) & np.isfinite(values), values, np.nan)
    now, name = values[index], measure.replace("_", " ")
    if np.isnan(now).all():
        return sentence(f"{name}: no finite value")
    show = formatter(analysis[measure])
    lowest, highest = int(np.nanargmin(now)), int(np.nanargmax(now))
    text = f"{name}: mean {show(_mean(now))} at step {int(analysis.step[index])}"
    if index and not np.isnan(values[0]).all():
        text += f" ({show(_mean(values[0]))} at step {int(analysis.step[0])})"
    text += f", lowest {show(now[lowest])} in {analysis.layer.values[lowest]}"
    return sentence(f"{text}, highest {show(now[highest])} in {analysis.layer.values[highest]}")


def meanings(analysis: xr.Dataset, names: list[str]) -> str:
    """Explain the short names of measures by their labels."""
    said = (f"{name.replace('_', ' ')}: {analysis[name].attrs.get('long_name', name)}" for name in names)
    return sentence("; ".join(said))


def _apart(run: Facts) -> bool:
    """Return whether the last evaluation and the last measured snapshot come from different steps."""
    return bool(np.isfinite(run.test_accuracy)) and run.test_step != run.step


def _mean(values: NDArray[np.float64]) -> float:
    with np.errstate(over="ignore"):  # a diverged run's numbers may sum to more than a float holds
        return float(np.nanmean(values))


def _divergence(run: Facts) -> str:
    where = "" if run.diverged_step is None else f" at step {run.diverged_step}"
    what = f" ({run.diverged_what})" if run.diverged_what else ""
    return f"diverged{where}{what}"


def _ending(run: Facts) -> str:
    endings = {
        "finished": "The run finished",
        "interrupted": "The run was interrupted",
        "running": "The run had not ended when it was read",
        "diverged": f"The run {_divergence(run)}",
    }
    text = endings.get(run.status, "How the run ended is not recorded") + "."
    if np.isfinite(run.test_accuracy):
        text += (
            f" The last evaluation, at step {run.test_step:.0f}, gave a {run.tested_on} accuracy of "
            f"{percent(run.test_accuracy)}."
        )
    else:
        text += f" No {run.tested_on} accuracy was recorded."
    if run.step != run.last_step:
        text += f" Snapshots after step {run.step} hold no finite measure, so the numbers below are of that step."
    return text


def _weights(run: Facts) -> str:
    if not run.measured:
        return "No layer that carries error has a weight angle."
    layers = "the one layer that carries" if run.measured == 1 else f"the {run.measured} layers that carry"
    text = (
        f"At step {run.step}, in {layers} error and can be compared, the feedback lies on average "
        f"{degrees(run.weight_angle)} from the forward weights (the median is {degrees(run.weight_angle_median)})."
    )
    if np.isfinite(run.chance_sd):
        text += (
            f" By chance it would be {degrees(run.chance)} ± {degrees(DEVIATIONS * run.chance_sd)} ({IN_WORDS} "
            f"in the smallest layer); {run.aligned} of {run.measured} layers lie below their own band."
        )
    if np.isfinite(run.norm_ratio):
        ratio = number(run.norm_ratio)
        text += f" The norm of the feedback is {ratio} times that of the weights (geometric mean)."
    return text


def _error(run: Facts) -> str:
    text = ""
    if np.isfinite(run.error_angle):
        text = (
            f"The error that trains the {run.first} ({short(run.first_layer, 40)}) lies "
            f"{degrees(run.error_angle)} from that of exact backpropagation."
        )
    if np.isfinite(run.total):
        text += (
            f" The error that {short(run.sender, 40)} sends down deviates by {degrees(run.local)} because of its own "
            f"feedback alone (local), by {degrees(run.inherited)} because of the error that reached it "
            f"(inherited) and by {degrees(run.total)} because of both (total); these angles do not add up."
        )
    return text.strip()
