"""The sections of the report on one run; a section is left out if the run holds nothing for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from wtdiag.diagnostics.analysis.chance import IN_WORDS
from wtdiag.diagnostics.analysis.layout import carrying, last_measured
from wtdiag.diagnostics.analysis.reading import predictions
from wtdiag.reports.document.content import Block, Figure, Frames, Section, Subjects
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.axes import left_out, spread
from wtdiag.reports.figures.lines import not_drawn
from wtdiag.reports.figures.style import TRAINING, look, number, percent, sentence
from wtdiag.reports.run.error_section import ERROR
from wtdiag.reports.run.facts import Facts
from wtdiag.reports.run.figure_parts import against, by_ratio, events_said, exact_said, layer_figure, present
from wtdiag.reports.run.figure_tables import evaluations, layer_table, layers_of, spectra_table, unused
from wtdiag.reports.run.sources import Source
from wtdiag.reports.run.summary import meanings

_CURVES = ("weight_angle", "weight_gain", "norm_ratio", "error_angle")
_ALIGNMENT = ("weight_angle", "sign_agreement", "weight_gain", "norm_ratio", "error_angle")
_MAPS = ("weight_angle", "sign_agreement", "weight_gain", "step_size_number")
_SPECTRAL = ("forward_spectral_norm", "feedback_spectral_norm", "forward_stable_rank", "feedback_stable_rank")


def training(source: Source, run: Facts) -> Section | None:
    """Show accuracy and loss over training."""
    panels, results, measures, sets = [], [], list[str](), dict[str, str]()
    steps, beside, others = source.analysis.step.values, source.against, ""
    for name, title, scale in (("accuracy", "Accuracy (%)", 100.0), ("loss", "Loss", 1.0)):
        lines = []
        for label, drawn, series in (
            ("training batch", TRAINING, source.metric(name)),
            (f"{source.tested_on} set", look(source.rule), source.evaluation(name)),
        ):
            if len(series):
                sets[label] = "on the training batch of each logged step" if drawn is TRAINING else f"on the {label}"
                of, trained = label.split()[0], drawn is TRAINING
                lines.append(sized.Curve(label, drawn, series.index, scale * series, dashed=trained, gid=of))
                value = percent(series.iloc[-1]) if name == "accuracy" else number(series.iloc[-1])
                results.append(f"{label} {name} ends at {value} (step {series.index[-1]:.0f})")
        if lines and beside is not None and len(values := beside.evaluation(name)):
            drawn = look(beside.rule)
            lines.append(sized.Curve(beside.name, drawn, values.index, scale * values, gid="reference", dashed=True))
            end = percent(values.iloc[-1]) if name == "accuracy" else number(values.iloc[-1])
            results.append(f"{beside.name} {name} ends at {end}")
            others = f", beside those of the run that it is held against ({beside.name})"
        if lines:
            measures.append(name)
            panels.append(sized.curves(lines, title=title, log=name == "loss", events=source.events, steps=steps))
    if not panels:
        return None
    losses = np.concatenate([source.metric("loss"), source.evaluation("loss")])
    caption = (
        f"{' and '.join(measures).capitalize()} of {source.name}{source.of_rule} over training steps, "
        f"{' and '.join(sets.values())}{others}.{left_out(losses)}{events_said(source)}"
    )
    alt, data = sentence("; ".join(results)), evaluations(source)
    figure = Figure(tuple(panels), caption, alt, data, name="training", measures=("loss", "accuracy"))
    return Section(" and ".join(measures).capitalize(), (figure,))


def maps(source: Source, run: Facts) -> Section | None:
    """Show alignment by step and layer."""
    if source.is_backprop:
        return None
    figure = alignment_maps(source, _MAPS, layers_of(source.analysis))
    return Section("Alignment by step and layer", (figure,)) if figure else None


def alignment_maps(source: Source, measures: Sequence[str], subjects: Subjects) -> Figure | None:
    """Draw a map by step and layer of each measure that the run has."""
    names = present(source.analysis, measures)
    if not names:
        return None
    colors = [text for name, text in _COLORS.items() if name in names]
    caption = (
        f"Alignment of every layer of {source.name} at every snapshot, from the input at the bottom to the output at "
        f"the top. "
        f"{meanings(source.analysis, names)} {' '.join(colors)} Cells without a value are grey."
        f"{exact_said(source.analysis, names, 'lies below the end of the key')}"
        f"{events_said(source)}{unused(source.analysis)}"
    )
    width = sized.width_of(len(names), subjects.names)
    panels = [sized.heatmap(source.analysis, name, events=source.events, width=width) for name in names]
    return layer_figure(source.analysis, names, panels, caption, f"{subjects.name}-maps", subjects)


_COLORS = {
    "weight_angle": "Colours of angles fade towards what chance gives; blue is aligned, red is opposed.",
    "weight_gain": "Colours of gains fade towards 1; in purple cells the feedback is too small, in green too large.",
    "norm_ratio": "Colours of norm ratios fade towards 1; in purple cells B is smaller than W, in green ones larger.",
    "step_size_number": "Colours of S fade towards 1, the limit; blue is stable, red is unstable.",
}


def layers(source: Source, run: Facts) -> Section | None:
    """Show every layer's alignment over training, and its numbers at the last snapshot."""
    analysis = source.analysis
    names = present(analysis, _CURVES)
    if not names or source.is_backprop:
        return None
    known = {name: variable for name, variable in predictions(analysis).items() if name in names}
    predicted = {name: variable for name, variable in known.items() if present(analysis, [variable])}
    without = unused(analysis)
    without += " The curves of these layers are dotted for measures of the feedback." if without else ""
    hidden = not_drawn(analysis, {name: predicted.get(name) for name in names if by_ratio(analysis, name)})
    dashed = " Dashed lines show where theory predicts that the feedback comes to rest." if predicted else ""
    caption = (
        f"Alignment of {source.name} over training, one curve per layer, coloured from the first layer (bottom of "
        f"the key) to the last. The grey bands are what chance gives each layer: the null expectation ± {IN_WORDS}."
        f"{dashed}{hidden}{exact_said(analysis, names, 'has no curve')}{events_said(source)}{without}"
    )
    panels = [
        sized.layer_curves(
            analysis,
            name,
            log=by_ratio(analysis, name),
            chance=True,
            predicted=predicted.get(name),
            events=source.events,
            width=sized.width_of(len(names), analysis.layer.values.tolist()),
        )
        for name in names
    ]
    figure = layer_figure(
        analysis, names, panels, caption, "curves", layers_of(analysis), also=tuple(predicted.values())
    )
    return Section("Layer by layer", (figure, layer_table(analysis, present(analysis, (*_ALIGNMENT, *ERROR)))))


def spectra(source: Source, run: Facts) -> Section | None:
    """Show the singular values, spectral norms and stable ranks of forward and feedback weights."""
    analysis, blocks = source.analysis, list[Block]()
    if {"forward_singular_values", "feedback_singular_values"} <= set(analysis) and not source.is_backprop:
        blocks.append(_singular_values(analysis, against(source, "forward_singular_values")))
    names = present(analysis, [name for name in _SPECTRAL if not (source.is_backprop and name.startswith("feedback"))])
    weights = "the weights" if source.is_backprop else "forward and feedback weights"
    if names:
        panels = [sized.layer_curves(analysis, name, log=by_ratio(analysis, name)) for name in names]
        caption = (
            "Spectral norm (largest singular value) and stable rank (squared Frobenius over squared spectral "
            f"norm) of {weights} over training, one curve per layer, coloured by depth."
        )
        blocks.append(layer_figure(analysis, names, panels, caption, "ranks", layers_of(analysis)))
    return Section("Spectra", tuple(blocks)) if blocks else None


def _singular_values(analysis: xr.Dataset, against: xr.Dataset | None) -> Figure:
    """Draw the spectra of up to six layers that carry error, at up to four snapshots, and W of another run."""
    last = last_measured(analysis)
    finite = np.isfinite(analysis.forward_singular_values.isel(step=last)).any("mode").values
    usable = np.flatnonzero(finite & carrying(analysis))
    usable = usable if len(usable) else np.arange(analysis.sizes["layer"])
    most = 6 if len(usable) > 4 else 4
    chosen = [int(usable[i]) for i in spread(len(usable), most)]
    which = f"{len(chosen)} layers across the depth" if len(chosen) < len(usable) else "every layer that carries error"
    steps = [int(analysis.step[i]) for i in spread(last + 1, 4)]
    dotted = f", dotted at step{'s' if len(steps) > 2 else ''} {', '.join(map(str, steps[:-1]))}" if last else ""
    theirs = "" if against is None else f" Dashed: W of the run by {against.attrs.get('rule')} at its end."
    data = spectra_table(analysis, chosen)
    return Figure(
        panels=tuple(
            sized.spectrum(analysis, layer, steps=steps, against=against, width=sized.width_of(len(chosen)))
            for layer in chosen
        ),
        caption=f"Singular values of {which}, in descending order: forward weights W are dark, feedback weights "
        f"B orange; the lines are solid at step {int(analysis.step[last])}{dotted}.{theirs} The shaded bands are what "
        f"Gaussian matrices of the same shape and norm give (± {IN_WORDS}). Values below 1e-4 of the "
        "largest of either matrix are not drawn.",
        alt=sentence("; ".join(f"{layer} {matrix}: largest {largest}" for layer, matrix, largest, *_ in data.rows)),
        data=data,
        name="spectra",
        measures=("forward_singular_values", "feedback_singular_values"),
        subjects=layers_of(analysis),
        frames=tuple(_moves(analysis, layer, last) for layer in chosen),
    )


def _moves(analysis: xr.Dataset, layer: int, drawn: int) -> Frames:
    """Return the singular values of a layer at every step, as many as the drawn snapshot has."""
    frames = {}
    for side in ("forward", "feedback"):
        values = analysis[f"{side}_singular_values"].isel(layer=layer).transpose("step", "mode").values
        frames[side] = values[:, np.isfinite(values[drawn])]
    return frames
