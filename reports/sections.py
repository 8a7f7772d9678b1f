"""The sections of the report on one run; each is built from the run alone and may have nothing to say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure as Panel

from reports.axes import spread
from reports.content import Block, Figure, Section, Text
from reports.facts import Facts, carrying, last_measured
from reports.figures import Curve, curves, error_profile, heatmap, layer_curves, spectrum
from reports.sources import Source
from reports.style import TRAINING, look, number, percent, sentence
from reports.summary import meanings, trend
from reports.tables import UNUSED, evaluations, history, layer_table, spectra_table

_ALIGNMENT = ("weight_angle", "sign_agreement", "norm_ratio", "error_angle")
_ERROR = ("error_angle_local", "error_angle_inherited", "error_angle_total")
_SPECTRAL = ("forward_spectral_norm", "feedback_spectral_norm", "forward_stable_rank", "feedback_stable_rank")


def training(source: Source, run: Facts) -> Section | None:
    """Show accuracy and loss over training."""
    panels, said = [], []
    for name, title, scale in (("accuracy", "Accuracy (%)", 100.0), ("loss", "Loss", 1.0)):
        lines = []
        for prefix, label, drawn in (
            ("", "training batch", TRAINING),
            ("test_", "test set", look(source.rule)),
        ):
            series = source.metric(prefix + name)
            if len(series):
                lines.append(Curve(label, drawn, series.index, scale * series, dashed=not prefix))
                value = percent(series.iloc[-1]) if name == "accuracy" else number(series.iloc[-1])
                said.append(f"{label} {name} ends at {value} (step {series.index[-1]:.0f})")
        if lines:
            panels.append(curves(lines, title=title, log=name == "loss", diverged=run.diverged_step))
    if not panels:
        return None
    caption = (
        f"Accuracy and loss of {source.name} (rule {source.rule}) over training steps, on the training batch "
        "of each logged step and on the test set."
    )
    figure = Figure(tuple(panels), caption, alt=sentence("; ".join(said)), data=evaluations(source))
    return Section("Accuracy and loss", (figure,))


def maps(source: Source, run: Facts) -> Section | None:
    """Show alignment by step and layer."""
    figure = alignment_maps(source)
    return Section("Alignment by step and layer", (figure,)) if figure else None


def alignment_maps(source: Source, measures: Sequence[str] = _ALIGNMENT) -> Figure | None:
    """Map by step and layer those of the measures that the run has."""
    names = _present(source.analysis, measures)
    if not names:
        return None
    ratio = " For the norm ratio, purple is feedback smaller than the weights, green larger."
    caption = (
        f"Alignment of every layer of {source.name} at every snapshot, the first layer at the top. "
        f"{meanings(source.analysis, names)} Pale is what chance gives; blue is aligned, red is opposed."
        f"{ratio if 'norm_ratio' in names else ''} Grey: no value. {UNUSED}"
    )
    return _figure(source.analysis, names, [heatmap(source.analysis, name) for name in names], caption)


def layers(source: Source, run: Facts) -> Section | None:
    """Show every layer's alignment over training, and its numbers at the last snapshot."""
    analysis = source.analysis
    names = _present(analysis, _ALIGNMENT)
    if not names:
        return None
    caption = (
        "The same measures as curves, one per layer, coloured from the first layer (top of the key) to the "
        "last. The grey band is what chance gives: the null expectation ± two standard deviations, widest "
        f"over the layers. {UNUSED} Where a measure is about feedback, their curves are dotted."
    )
    panels = [layer_curves(analysis, name, log=name == "norm_ratio", chance=True) for name in names]
    table = layer_table(analysis, _present(analysis, (*_ALIGNMENT, *_ERROR)))
    return Section("Layer by layer", (_figure(analysis, names, panels, caption), table))


def spectra(source: Source, run: Facts) -> Section | None:
    """Show the singular values of both matrices, their largest and their stable rank."""
    analysis, blocks = source.analysis, list[Block]()
    if {"forward_singular_values", "feedback_singular_values"} <= set(analysis):
        blocks.append(_singular_values(analysis))
    names = _present(analysis, _SPECTRAL)
    if names:
        panels = [layer_curves(analysis, name, log=name.endswith("norm")) for name in names]
        caption = (
            "Spectral norm (largest singular value) and stable rank (squared Frobenius over squared spectral "
            "norm) of forward and feedback weights over training, one curve per layer, coloured by depth."
        )
        blocks.append(_figure(analysis, names, panels, caption))
    return Section("Spectra", tuple(blocks)) if blocks else None


def error_signal(source: Source, run: Facts) -> Section | None:
    """Show the error's angle to exact backpropagation by depth, split into its causes."""
    names = _present(source.analysis, _ERROR)
    if "error_angle_total" not in names:
        return None
    meaning = (
        "The error that a layer sends down deviates from exact backpropagation because of its own feedback "
        "(local: the same error sent through B and through W), because of the error that reached it "
        "(inherited: the rule's and the exact error, both sent through W), or both (total). Read from the "
        "bottom, where the error starts."
    )
    caption = (
        f"Angle between the error each layer of {source.name} sends down and the exact one, at step "
        f"{run.step}. The grey line is 90°, where the error tells nothing of the gradient's direction."
    )
    panels = [error_profile(source.analysis, snapshot=last_measured(source.analysis))]
    figure = _figure(source.analysis, names, panels, caption)
    return Section("Where the error signal turns", (Text(meaning), figure))


def _singular_values(analysis: xr.Dataset) -> Figure:
    """Draw the spectra of up to six layers that carry error, at the first and the last snapshot."""
    last = last_measured(analysis)
    finite = np.isfinite(analysis.forward_singular_values.isel(step=last)).any("mode").values
    usable = np.flatnonzero(finite & carrying(analysis))
    usable = usable if len(usable) else np.arange(analysis.sizes["layer"])
    chosen = [int(usable[i]) for i in spread(len(usable), 6)]
    which = f"{len(chosen)} layers across the depth" if len(chosen) < len(usable) else "every layer that carries error"
    dotted = f", dotted at step {int(analysis.step[0])}" if last else ""
    data = spectra_table(analysis, chosen)
    return Figure(
        panels=tuple(spectrum(analysis, layer, snapshots=(0, last) if last else (0,)) for layer in chosen),
        caption=f"Singular values of {which}, in descending order: forward weights W dark, feedback weights "
        f"B orange; solid at step {int(analysis.step[last])}{dotted}. The shaded bands are what Gaussian "
        "matrices of the same shape and norm give (± two standard deviations). Values below 1e-4 of the "
        "panel's largest are not drawn.",
        alt=sentence("; ".join(f"{layer} {matrix}: largest {largest}" for layer, matrix, largest, *_ in data.rows)),
        data=data,
    )


def _figure(analysis: xr.Dataset, names: list[str], panels: Sequence[Panel], caption: str) -> Figure:
    """Join panels that show measures over step and layer with their words and numbers."""
    words = " ".join(trend(analysis, name) for name in names)
    return Figure(tuple(panels), caption, alt=words, data=history(analysis, names))


def _present(analysis: xr.Dataset, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in analysis]
