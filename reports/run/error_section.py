"""The section on the error signal: where it turns away from exact backpropagation, and what each layer costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.costs import COSTS, culprits
from wtdiag.reports.document.content import Block, Figure, Section, Subjects, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.figure_parts import against, last_of, layer_figure, present
from wtdiag.reports.run.figure_tables import layers_of
from wtdiag.reports.run.sources import Source

ERROR = ("error_angle_local", "error_angle_inherited", "error_angle_total")


def error_signal(source: Source, run: Facts) -> Section | None:
    """Show by depth the angle between the error and exact backpropagation, its causes, and the cost of each layer."""
    analysis = source.analysis
    names = present(analysis, ERROR)
    if "error_angle_total" not in names or source.is_backprop:
        return None
    meaning = (
        "The error that a layer sends down deviates from exact backpropagation because of its own feedback "
        "(local: the same error sent through B and through W), because of the error that reached it "
        "(inherited: the rule's and the exact error, both sent through W), or both (total). The figure "
        "is read from the top, the output, where the error starts, down to the input at the bottom."
    )
    subjects = layers_of(analysis)
    step, lost = _reached(analysis, run.step)
    others = against(source, "error_angle_total", "error_angle")
    panels = [sized.error_profile(analysis, step=step, against=others)]
    drawn, product = [names], ""
    if {"error_angle", "error_angle_product"} <= set(analysis):
        drawn.append(["error_angle", "error_angle_product"])
        panels.append(sized.product_law(analysis, step=step, against=others))
        product = (
            " Right: the angle of the error that trains each layer, as measured and as the product law predicts it "
            "from the local angles of the layers above (the product of their cosines, as if they were independent)."
        )
    frames = tuple({name: analysis[name].transpose("step", "layer").values for name in part} for part in drawn)
    if lost:  # the slider begins at the last snapshot
        frames, subjects = (), _alone(subjects, step)
    caption = (
        f"Angle between the error that each layer of {source.name} sends down and the exact one, at step "
        f"{step}.{lost} The grey line is 90°, where the error says nothing about the direction of the gradient."
        f"{product}"
    )
    if others is not None and source.against is not None:
        caption += f" Dashed: the run that it is held against ({source.against.name}), at its end."
    names = [name for part in drawn for name in part]
    blocks: list[Block] = [Text(meaning), layer_figure(analysis, names, panels, caption, "errors", subjects, frames)]
    costs = present(analysis, ("attribution_angle", "attribution_loss"))
    if len(costs) == 2 and (np.abs(analysis[costs[0]].isel(step=last_of(analysis, costs[0]))) > 0).any():
        blocks.append(_attribution(source, costs, subjects))
    return Section("Where the error signal turns", tuple(blocks))


def _reached(analysis: xr.Dataset, step: int) -> tuple[int, str]:
    """Return the last snapshot at which most layers still send an error down, and why it is not ``step`` if so."""
    counts = np.isfinite(analysis.error_angle_total.transpose("step", "layer").values).sum(axis=1)
    last = int(analysis.step[np.flatnonzero(counts == counts.max())[-1]])
    if last == step:
        return step, ""
    lost = counts.max() - counts[analysis.step.values.tolist().index(step)]
    return last, f" This is the last snapshot at which {counts.max()} layers send one: at step {step}, {lost} do not."


def _alone(subjects: Subjects, step: int) -> Subjects:
    """Return the layers at one step, for a figure that shows another one than the rest of the page."""
    return dataclasses.replace(subjects, name=f"{subjects.name}-at-{step}", steps=(step,), drawn=0)


def _attribution(source: Source, names: list[str], subjects: Subjects) -> Figure:
    analysis, index = source.analysis, last_of(source.analysis, names[0])
    now = {name: analysis[name].isel(step=index).values for name in present(analysis, tuple(COSTS))}
    blamed = culprits(now)
    caption = (
        f"Cost of the feedback of each layer of {source.name} at step {int(analysis.step[index])}: the degrees that it "
        "adds to the error angle at the first layer, and the share that it takes from the decrease of the loss in one "
        "step of exact backpropagation. It is what putting B in the place of W changes, averaged over the orders in "
        "which layers can be replaced (Shapley value), so the costs of all layers add up to those of the rule. A "
        "negative cost means that the layer's feedback makes up for that of others, or lengthens a step that is too "
        "short. Thin lines are one standard error to either side."
    )
    if blamed is not None:
        caption += " Counting both costs, the error at the first layer is due mainly to "
        caption += f"{blamed.said(analysis.layer.values)}."
    panels = [sized.attribution(analysis, name, step=int(analysis.step[index])) for name in names]
    subjects = subjects if index == subjects.drawn else _alone(subjects, int(analysis.step[index]))
    return layer_figure(analysis, names, panels, caption, "attribution", subjects)
