"""The report on several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reports.appendix import methods, repeat
from reports.content import Figure, Report, Section, Table, Text
from reports.facts import Facts, facts, last_measured, meaningful
from reports.figures import Curve, curves
from reports.sections import alignment_maps
from reports.sources import Source
from reports.style import look, number, percent
from reports.summary import sentences
from reports.tables import degrees

Measured = tuple[Source, Facts]


def joint(sources: Sequence[Source]) -> Report:
    """Build the report that compares runs: table, curves by rule, then each run briefly."""
    runs = [(source, facts(source)) for source in sources]
    figures = [figure for figure in (_curves(runs), _depth(runs)) if figure is not None]
    comparison = Section("Comparison", (_table(runs), *figures))
    rules = list(dict.fromkeys(source.rule for source in sources))
    return Report(
        title=f"Comparison of {', '.join(rules) if 1 < len(rules) < 7 else f'{len(runs)} runs'}",
        verdict=_ranking(runs),
        sections=(
            comparison,
            *(_brief(*measured) for measured in runs),
            methods([source.analysis for source in sources]),
        ),
    )


def _ranking(runs: Sequence[Measured]) -> str:
    tested = [pair for pair in runs if np.isfinite(pair[1].test_accuracy)]
    tested.sort(key=lambda pair: -pair[1].test_accuracy)
    text = "No run recorded a test accuracy."
    if tested:
        (best, first), (worst, last) = tested[0], tested[-1]
        text = f"Best test accuracy: {_called(best.name, first.rule)} with {percent(first.test_accuracy)}"
        if len(tested) > 1:
            text += f"; lowest: {_called(worst.name, last.rule)} with {percent(last.test_accuracy)}"
        text += "."
    diverged = [source.name for source, run in runs if run.status == "diverged"]
    if diverged:
        text += f" Diverged: {', '.join(diverged)}."
    return text


def _called(run: str, rule: str) -> str:
    return run if run == rule else f"{run} ({rule})"


def _table(runs: Sequence[Measured]) -> Table:
    rows = tuple(
        (
            *(source.name, run.rule, run.status, percent(run.test_accuracy)),
            *(degrees(run.weight_angle), degrees(run.error_angle), number(run.norm_ratio)),
        )
        for source, run in runs
    )
    heads = ("run", "rule", "status", "test accuracy", "weight angle", "error angle", "norm ratio")
    caption = (
        "Test accuracy at the last evaluation; at the last snapshot with values: mean weight angle and "
        "geometric mean norm ratio ‖B‖/‖W‖ of the layers that carry error, and the angle between the error "
        "that trains the first layer and exact backpropagation's."
    )
    return Table(caption, heads, rows, labels=3)


def _curves(runs: Sequence[Measured]) -> Figure | None:
    accuracy = [(source, source.metric("test_accuracy")) for source, _ in runs]
    learned = [_line(source, series.index, 100 * series) for source, series in accuracy if len(series)]
    angles = [(source, _mean_angle(source)) for source, _ in runs]
    aligned = [_line(s, s.analysis.step.values, angle) for s, angle in angles if np.isfinite(angle).any()]
    panels = []
    if learned:
        panels.append(curves(learned, title="Test accuracy (%)"))
    if aligned:
        panels.append(curves(aligned, title="Mean weight angle (°)"))
    if not panels:
        return None
    return Figure(
        panels=tuple(panels),
        caption="Test accuracy, and weight angle averaged over the layers that carry error, over training "
        "steps; one line per run, one colour and marker per rule. Chance gives 90°.",
        alt=_ranking(runs),
        data=_table(runs),
    )


def _depth(runs: Sequence[Measured]) -> Figure | None:
    lines, rows = [], []
    for source, run in runs:
        if "error_angle" in source.analysis:
            angle = source.analysis.error_angle.isel(step=last_measured(source.analysis)).values
            lines.append(_line(source, np.arange(1, len(angle) + 1), angle))
            rows += [
                (source.name, run.rule, str(layer), degrees(value))
                for layer, value in zip(source.analysis.layer.values, angle, strict=True)
            ]
    if not lines:
        return None
    said = [f"{source.name}: {degrees(run.error_angle)} at the first layer" for source, run in runs]
    return Figure(
        panels=(curves(lines, title="Error angle by depth (°)", x_label="layer, counted from the input"),),
        caption="Angle between the error that trains each layer and exact backpropagation's, at each run's "
        "last snapshot with values; one line per run, one colour and marker per rule.",
        alt="; ".join(said) + ".",
        data=Table("The numbers drawn.", ("run", "rule", "layer", "error angle"), tuple(rows), labels=3),
    )


def _line(source: Source, x: object, y: object) -> Curve:
    return Curve(source.rule, look(source.rule), np.asarray(x, dtype=float), np.asarray(y, dtype=float))


def _mean_angle(source: Source) -> NDArray[np.float64]:
    if "weight_angle" not in source.analysis:
        return np.array([np.nan])
    angle = source.analysis.weight_angle.transpose("step", "layer").values[
        :, meaningful(source.analysis, "weight_angle")
    ]
    count = np.isfinite(angle).sum(axis=1)
    return np.where(count, np.nansum(angle, axis=1) / np.maximum(count, 1), np.nan)


def _brief(source: Source, run: Facts) -> Section:
    """One run in its sentences, its maps of alignment and the command that repeats it."""
    maps = alignment_maps(source, ("weight_angle", "error_angle"))
    command = repeat(source)
    texts = tuple(Text(sentence) for sentence in sentences(run))
    rest = tuple(block for block in (maps, command) if block is not None)
    return Section(f"Run {source.name}", (*texts, *rest))
