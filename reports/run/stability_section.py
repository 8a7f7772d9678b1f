"""The section that compares the stability and the resting point of the feedback that theory predicts with the run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.diagnostics.analysis.reading import about, predictions
from wtdiag.reports.document.content import Figure, Section, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import fixed, look, number, short
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.figure_parts import against, events_said
from wtdiag.reports.run.figure_tables import degrees, history, layers_of
from wtdiag.reports.run.relative_steps import steps_of_adam, takes_adam, without_theory
from wtdiag.reports.run.sources import Source
from wtdiag.reports.run.summary import trend

_EXPLAINED = {
    "largest S": "The largest S is taken over all snapshots before training broke, if it did.",
    "safe feedback lr": "With a learning rate of the feedback above the safe one, S would have exceeded 1 in some "
    "snapshot before training broke.",
    "growth of S": "The growth of S is its largest value over its first.",
    "recommended feedback lr": "The recommended learning rate is 0.4 of the safe one, because S grows as W learns, in "
    "each run in another way.",
    "safe coefficients ×": "With all coefficients of the rule multiplied by more than the safe factor, S would have "
    "exceeded 1 in some snapshot before training broke.",
    "ran away at step": "A layer ran away at the first step at which its feedback was ten times its initial size.",
    "relaxation time": "The relaxation time is in steps.",
    "relative step": "The relative step is the size of a step of the feedback over that of its fixed point.",
    "travel time": "The travel time is the number of steps that Adam needs at least to reach the fixed point.",
}


def stability(source: Source, run: Facts) -> Section | None:
    """Compare the predicted stability with the observed one, and the predicted resting point with the one reached."""
    analysis = source.analysis
    if source.is_backprop:
        return None
    has_theory = "step_size_number" in analysis and np.isfinite(analysis.step_size_number).any()
    told = has_theory or takes_adam(analysis) or _broke(source) or without_theory(source)
    summary = [Text(_summary(source, run))] if told else []
    blocks = [block for block in (*summary, _figure(source), _gains(source, run), _table(source)) if block is not None]
    predicted = bool(has_theory) or takes_adam(analysis) or _predicts(analysis)
    title = "Stability: predicted and observed" if predicted else "Size of the feedback and of the errors"
    if not predicted and "error_norm_ratio" not in analysis:
        title = "Size of the feedback"
    return Section(title, tuple(blocks)) if blocks else None


def _predicts(analysis: xr.Dataset) -> bool:
    return any(np.isfinite(analysis[name]).any() for name in predictions(analysis).values())


def _broke(source: Source) -> bool:
    """Return whether the run diverged or the feedback of a layer ran away."""
    return source.config.get("status") == "diverged" or bool(source.stability.runaway_step.notna().any())


def _figure(source: Source) -> Figure | None:
    analysis = source.analysis
    panels, captions, results, measures = [], [], [], []
    if "step_size_number" in analysis and np.isfinite(analysis.step_size_number).any():
        panels.append(sized.stability(analysis, events=source.events))
        captions.append(
            f"Step-size number S of every layer of {source.name}: the learning rate of the feedback over the "
            "largest stable one. Above the line at 1 the feedback of that layer grows without bound."
        )
        results.append(trend(analysis, "step_size_number"))
        measures.append("step_size_number")
    elif takes_adam(analysis):
        limit = about(analysis.relative_step).limit
        panels.append(sized.layer_curves(analysis, "relative_step", log=True, limit=limit, events=source.events))
        captions.append(
            f"Relative step of every layer of {source.name}: the size of a step of Adam on the feedback over that of "
            "the fixed point. Above the line at 1, one step is larger than all that the feedback has to learn."
        )
        results.append(trend(analysis, "relative_step"))
        measures.append("relative_step")
    if "log_norm_ratio_sum" in analysis and np.isfinite(analysis.log_norm_ratio_sum).any():
        sums, steps = analysis.log_norm_ratio_sum.values, analysis.step.values
        lines = [sized.Curve("sum of log norm ratios", look(source.rule), steps, sums, gid="sum")]
        if (other := against(source, "log_norm_ratio_sum")) is not None and source.against is not None:
            theirs, drawn = other.log_norm_ratio_sum, look(source.against.rule)
            lines = [
                lines[0]._replace(name="this run"),
                sized.Curve(source.against.name, drawn, other.step, theirs, dashed=True, gid="reference"),
            ]
        panels.append(sized.curves(lines, title="Sum of log norm ratios", events=source.events, steps=steps))
        captions.append(
            f"Sum of log norm ratios of {source.name}: the logarithms of ‖B‖/‖W‖ summed over the layers that carry "
            "error. Above 0 the error grows on its way down, below 0 it fades, whatever the angles."
        )
        results.append(f"The sum of log norm ratios is {number(sums[last_measured(analysis)])} at the end.")
        measures.append("log_norm_ratio_sum")
    if not panels:
        return None
    return Figure(
        panels=tuple(panels),
        caption=" ".join(captions) + events_said(source),
        alt=" ".join(results),
        data=history(analysis, measures),
        name="stability",
        measures=tuple(measures),
        subjects=layers_of(analysis),
    )


def _gains(source: Source, run: Facts) -> Figure | None:
    """Show how the size of the errors changes on their way down, if errors were measured."""
    analysis = source.analysis
    measures = [
        name for name in ("norm_ratio", "error_norm_ratio", "activation_norm")
        if name in analysis and np.isfinite(analysis[name]).any()
    ]  # fmt: skip
    if not {"norm_ratio", "error_norm_ratio"} <= set(measures):
        return None
    activations = "; activation: root mean square of the layer's input" if "activation_norm" in measures else ""
    return Figure(
        panels=(
            sized.size_profile(analysis, step=run.step),
            sized.heatmap(analysis, "error_norm_ratio", events=source.events),
        ),
        caption=f"Size of the errors of {source.name}. Left, at step {run.step}, this layer: ‖B‖/‖W‖; from the output "
        "down: the product of these over this and all layers above that carry error; error: the norm of the error that "
        f"trains the layer over that of the exact error{activations}. Right: the norm ratio of the errors at every "
        f"snapshot; in purple cells the error is smaller than the exact one, in green larger.{events_said(source)}",
        alt=" ".join(trend(analysis, name) for name in measures),
        data=history(analysis, measures),
        name="gains",
        measures=tuple(measures),
        subjects=layers_of(analysis),
    )


def _summary(source: Source, run: Facts) -> str:
    """Say in which layer S first passes 1, which layer first runs away, and what became of the run."""
    table = source.stability
    known, of_adam = table.step_size_number.dropna(), steps_of_adam(source.analysis)
    if not of_adam and not len(known) and table.unstable_step.isna().all():
        if optimizer := without_theory(source):
            return (
                f"Not known: how large the steps of {optimizer} on the feedback may be. Step-size numbers, relaxation "
                "times and relative steps are known for SGD and Adam only."
            )
        return (
            "No layer has a step-size number S: it is defined if the feedback learns by a rule with a linear theory, "
            "by gradient descent with or without momentum."
        )
    unstable, ran_away = table.unstable_step.dropna(), table.runaway_step.dropna()
    if of_adam:
        predicted = of_adam
    elif len(unstable):
        predicted = (
            f"Predicted: unstable from step {unstable.min():.0f}, first in {short(unstable.idxmin(), 40)}; "
            f"S passes 1 in {len(unstable)} of {len(table)} layers."
        )
    else:
        predicted = (
            f"Predicted: stable. The largest S is {number(known.max())}, in {short(known.idxmax(), 40)}; below 1 the "
            "feedback settles."
        )
    observed = (
        f"{short(ran_away.idxmin(), 40)} was the first to run away, at step {ran_away.min():.0f}; "
        if len(ran_away)
        else ""
    )
    if run.status == "diverged":
        observed += "the run diverged" + ("" if run.diverged_step is None else f" at step {run.diverged_step}")
        lead = table.lead_time.max()
        observed += f", {lead:.0f} steps after the first warning" if lead > 0 else ""
    else:
        observed += "the run did not diverge"
    return f"{predicted} Observed: {observed}."


def _table(source: Source) -> Table | None:
    """Tabulate the predictions for each layer beside the values measured at the last snapshot that holds any."""
    analysis, observed = source.analysis, source.stability
    index = last_measured(analysis)
    columns: dict[str, tuple[Callable[[float], str], NDArray[np.float64]]] = {
        "largest S": (number, observed.step_size_number.to_numpy()),
        "S > 1 from step": (_step, observed.unstable_step.to_numpy()),
        "ran away at step": (_step, observed.runaway_step.to_numpy()),
        "growth of S": (number, observed.growth.to_numpy()),
        "safe feedback lr": (number, observed.largest_feedback_lr.to_numpy()),
        "recommended feedback lr": (number, observed.recommended_feedback_lr.to_numpy()),
    }
    if np.isnan(observed.largest_feedback_lr).all():
        columns["safe coefficients ×"] = number, observed.largest_coefficient_scale.to_numpy()
    adams = ("relative_step", "travel_time") if takes_adam(analysis) else ()
    for name in ("relaxation_time", "tracking_lag", *adams):
        columns |= _column(analysis, name, name.replace("_", " "), index)
    for measure, predicted in predictions(analysis).items():
        columns |= _column(analysis, predicted, f"predicted {_brief(measure)}", index)
        columns |= _column(analysis, measure, _brief(measure), index)
    columns |= _column(analysis, "predicted_noise_angle", "angle by noise alone", index)
    columns = {head: column for head, column in columns.items() if np.isfinite(column[1]).any()}
    if not columns.keys() - {_brief(measure) for measure in predictions(analysis)}:
        return None  # measured values alone stand in the table of the layers
    explained = (f" {text}" for head, text in _EXPLAINED.items() if head in columns)
    cells = [[show(value) for value in values] for show, values in columns.values()]
    subjects = layers_of(analysis)
    caption = (
        "Predictions of the theory beside the measured values, by layer, at step "
        f"{int(analysis.step[index])}.{''.join(explained)}"
    )
    return Table(
        caption=caption,
        columns=("layer", *columns),
        rows=tuple(zip(subjects.names, *cells, strict=True)),
        subjects=subjects,
        picks=tuple(range(len(subjects.names))),
    )


def _step(value: float) -> str:
    return fixed(value, 0)


def _column(
    analysis: xr.Dataset, name: str, head: str, index: int
) -> dict[str, tuple[Callable[[float], str], NDArray[np.float64]]]:
    if name not in analysis:
        return {}
    measure = analysis[name].transpose("step", "layer")
    show = degrees if measure.attrs.get("units") == "degree" else number
    return {head: (show, np.asarray(measure.values[index], dtype=np.float64))}


def _brief(measure: str) -> str:
    return measure.removeprefix("weight_").replace("_", " ")
