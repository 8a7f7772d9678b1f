"""The report that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wtdiag.diagnostics.comparison.compare import compare
from wtdiag.diagnostics.findings.headline import worst_severity
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.reports.comparison.groups import SeedGroup, average, depth, gaps, groups, mean_angle, opened, profile
from wtdiag.reports.document.content import Block, Figure, Report, Section, Subjects, Table, Text
from wtdiag.reports.figures import sized
from wtdiag.reports.figures.style import fixed, number, percent, sentence
from wtdiag.reports.run.appendix import methods, repeat
from wtdiag.reports.run.facts import Facts, facts
from wtdiag.reports.run.figure_tables import degrees, layers_of
from wtdiag.reports.run.findings_section import entries
from wtdiag.reports.run.sections import alignment_maps
from wtdiag.reports.run.sources import NO_FINDINGS, UNDIAGNOSED, Source
from wtdiag.reports.run.summary import sentences


@dataclass(frozen=True)
class _Compared:
    runs: tuple[tuple[Source, Facts], ...]
    groups: tuple[SeedGroup, ...]
    subjects: Subjects

    @property
    def tested(self) -> list[tuple[Source, Facts]]:
        """The runs whose accuracies are compared: those on the test set, or if no run has one, on validation."""
        every = [pair for pair in self.runs if np.isfinite(pair[1].test_accuracy)]
        return [pair for pair in every if pair[1].tested_on == "test"] or every

    @property
    def tested_on(self) -> str:
        """The set on which the accuracies are compared."""
        return self.tested[0][1].tested_on if self.tested else "test"

    @property
    def gaps(self) -> dict[str, float]:
        """The gap in accuracy between each run and its paired run by backpropagation, in points, by name."""
        return gaps([source for source, _ in self.runs], self.tested_on)

    def pick(self, source: Source) -> int:
        """Return the index of the group that a run belongs to."""
        return next(i for i, group in enumerate(self.groups) if source in group.runs)


def joint(sources: Sequence[Source]) -> Report:
    """Build the report that compares runs: table, curves by rule, depth gap, then each run briefly."""
    runs = tuple((source, facts(source)) for source in sources)
    grouped = groups(sources)
    compared = _Compared(runs, grouped, Subjects("runs", "run", tuple(group.name for group in grouped)))
    parts = (_differences(sources), _curves(compared), _gap(compared), _depth(compared))
    comparison = Section(
        "Comparison", (_table(compared), *(part for part in parts if part is not None), *_one_seed(sources))
    )
    briefs = [_brief(i, *measured) for i, measured in enumerate(runs)]
    figures = [block for part in (comparison, *briefs) for block in part.blocks if isinstance(block, Figure)]
    shown = {"norm_ratio", "error_angle", "step_size_number", *(name for each in figures for name in each.measures)}
    rules = list(dict.fromkeys(source.rule for source in sources))
    return Report(
        title=f"Comparison of {', '.join(rules) if 1 < len(rules) < 7 else f'{len(runs)} runs'}",
        verdict=" ".join(text for text in (_ranking(compared), _health(sources)) if text),
        sections=(
            comparison,
            *briefs,
            methods([source.analysis for source in sources], shown),
        ),
    )


def _one_seed(sources: Sequence[Source]) -> list[Text]:
    """Say so if all runs have the same seed, from which a difference between rules cannot be told from luck."""
    seeds = {source.settings.get("seed") for source in sources}
    if len(seeds) > 1 or None in seeds:
        return []
    return [
        Text(f"All of these runs have one seed ({seeds.pop()}), so that a difference between them may be due to it.")
    ]


def _ranking(compared: _Compared) -> str:
    on, tested = compared.tested_on, sorted(compared.tested, key=lambda pair: -pair[1].test_accuracy)
    if not tested:
        return "No run recorded a test accuracy."
    best, worst = _reaching(tested, tested[0]), _reaching(tested, tested[-1])
    if len(tested) > 1 and best == worst:  # to the decimals that are shown
        return f"All have the same {on} accuracy: {best}."
    return f"Best {on} accuracy: {best}{f'; lowest: {worst}' if len(tested) > 1 else ''}."


def _reaching(tested: Sequence[tuple[Source, Facts]], one: tuple[Source, Facts]) -> str:
    """Name the runs whose accuracy, as shown, equals that of one of them, and state it."""
    said = percent(one[1].test_accuracy)
    names = [_called(source.name, run.rule) for source, run in tested if percent(run.test_accuracy) == said]
    return f"{', '.join(names) if len(names) < 5 else f'{len(names)} runs'} with {said}"


def _health(sources: Sequence[Source]) -> str:
    """State which runs have severe findings, which diverged and which were not diagnosed."""
    diverged = [source.name for source in sources if source.config.get("status") == "diverged"]
    broken = [
        source.name for source in sources if worst_severity(source.findings) == "high" and source.name not in diverged
    ]
    said = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("Diverged", diverged),
            ("Findings of high severity", broken),
            (UNDIAGNOSED, [source.name for source in sources if not source.findings]),
        )
        if names
    ]
    return " ".join(f"{text}." for text in said)


def _called(run: str, rule: str) -> str:
    return run if run == rule else f"{run} ({rule})"


def _table(compared: _Compared) -> Table:
    below, on = compared.gaps, compared.tested_on
    seeds = len({source.settings.get("seed") for source, _ in compared.runs}) > 1
    named = any(source.name != run.rule for source, run in compared.runs)
    rows = tuple(
        (
            *(source.name, percent(run.test_accuracy if run.tested_on == on else np.nan), fixed(below[source.name], 1)),
            *((run.rule,) if named else ()),
            *((str(source.settings.get("seed", "–")),) if seeds else ()),
            str(depth(source)),
            *(degrees(run.weight_angle), degrees(run.error_angle), number(run.norm_ratio), number(run.largest_s)),
            *(run.status, _worst(source)),
        )
        for source, run in compared.runs
    )
    heads = (
        *("run" if named else "rule", f"{on} accuracy", "gap to bp (points)"),
        *(("rule",) if named else ()),
        *(("seed",) if seeds else ()),
        *("layers", "weight angle", "error angle", "norm ratio", "largest S", "status", "most severe finding"),
    )
    caption = (
        f"{on.capitalize()} accuracy at the last evaluation, and its gap to backpropagation with the same seed and "
        "settings. At the last snapshot with values: the mean weight angle and the geometric mean of the norm ratio "
        "‖B‖/‖W‖ over the layers that carry error, and the angle between the error that trains the first layer and "
        "that of exact backpropagation. The largest step-size number S is taken over all layers and snapshots."
    )
    kept = [i for i in range(len(heads)) if any(row[i] != "–" for row in rows)]
    return Table(
        caption,
        columns=tuple(heads[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        subjects=compared.subjects,
        picks=tuple(compared.pick(source) for source, _ in compared.runs),
    )


def _differences(sources: Sequence[Source]) -> Table | None:
    """Tabulate the differences between paired runs, by pair of rules."""
    table = compare(map(opened, sources))
    if table.empty:
        return None

    def shown(row: Any, value: float) -> str:
        if "accuracy" in row.measure or row.measure == "depth_gap":
            return fixed(100 * value, 1, " points")
        return degrees(value) if row.units == "degree" else number(value)

    rows = tuple(
        (
            *(row.conditions, f"{row.rule} – {row.reference}", row.measure.replace("_", " ")),
            *(shown(row, row.difference), shown(row, row.low), shown(row, row.high)),
            f"{row.n}{f' ({row.diverged} diverged)' if row.diverged else ''}",
        )
        for row in table.itertuples()
    )
    heads = ("runs", "rules", "measure", "difference", "from", "to", "pairs")
    single = all(row[4] == row[5] == "–" for row in rows)  # a single pair has no interval
    dropped = ("from", "to") if table["diverged"].any() else ("from", "to", "pairs")
    kept = [i for i, head in enumerate(heads) if not (single and head in dropped)]
    what = (
        "one pair each" if single else "the mean and the ends of its 95 % interval, which a single pair does not have"
    )
    return Table(
        caption="Differences between rules, over pairs of runs that share seed, model, data and all other settings: "
        f"{what}. A run that diverged counts as answering at chance. The depth gap is the accuracy at the greatest "
        "depth minus that at the least.",
        columns=tuple(heads[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        labels=3,
    )


def _worst(source: Source) -> str:
    """Return the kind of a run's most severe finding."""
    ordered = sorted(source.findings or (), key=lambda finding: SEVERITIES.index(finding.severity))
    if not ordered:
        return "–"
    return ordered[0].kind.replace("-", " ") if ordered[0].severity != "none" else "none"


def _curves(compared: _Compared) -> Figure | None:
    panels, on = [], compared.tested_on
    steps = np.unique(np.concatenate([source.analysis.step.values for source, _ in compared.runs]))
    for title, series in (
        (f"{on.capitalize()} accuracy (%)", lambda source: 100 * source.metric(f"{on}_accuracy")),
        ("Mean weight angle (°)", mean_angle),
    ):
        lines = [line for i, group in enumerate(compared.groups) for line in average(group, i, series)]
        if lines:
            panels.append(sized.curves(lines, title=title, steps=steps))
    if not panels:
        return None
    return Figure(
        panels=tuple(panels),
        caption=f"{on.capitalize()} accuracy, and the weight angle averaged over the layers that carry error, over "
        f"training steps; {_lines(compared)} By chance, an angle is 90°.",
        alt=_ranking(compared),
        data=_table(compared),
        name="comparison",
        measures=("test_accuracy", "weight_angle"),
        subjects=compared.subjects,
    )


def _gap(compared: _Compared) -> Figure | None:
    """Draw the gap of each rule to backpropagation over the number of layers, if the runs differ in depth."""
    below = compared.gaps
    gapped = [
        (group, depth(source), below[source.name])
        for group in compared.groups
        for source in group.runs
        if np.isfinite(below[source.name])
    ]
    if len({at for _, at, _ in gapped}) < 2:
        return None
    lines, rows = [], []
    for method, drawn in dict.fromkeys((group.method, group.look) for group, *_ in gapped):
        own = [(at, gap) for group, at, gap in gapped if group.method == method]
        depths = sorted({at for at, _ in own})
        values = [[gap for there, gap in own if there == at] for at in depths]
        mean, sd = ([float(do(each)) for each in values] for do in (np.mean, np.std))
        band = (np.subtract(mean, sd), np.add(mean, sd)) if max(map(len, values)) > 1 else (None, None)
        lines.append(sized.Curve(method, drawn, depths, mean, gid=method, low=band[0], high=band[1]))
        rows += [(method, str(at), fixed(m), fixed(s)) for at, m, s in zip(depths, mean, sd, strict=True)]
    said = (f"{method} is {gap} points below backpropagation at {at} layers" for method, at, gap, _ in rows)
    return Figure(
        panels=(sized.curves(lines, title="Gap to backpropagation (points)", x_label="layers"),),
        caption=f"Gap of each rule in {compared.tested_on} accuracy to backpropagation with the same seed and "
        "settings, over the number of layers. Bands: ± one standard deviation over seeds.",
        alt=sentence("; ".join(said)),
        data=Table("The numbers drawn.", ("rule", "layers", "gap (points)", "sd over seeds"), tuple(rows)),
        name="depth-gap",
        measures=("test_accuracy",),
    )


def _depth(compared: _Compared) -> Figure | None:
    lines = [line for i, group in enumerate(compared.groups) for line in average(group, i, profile)]
    if not lines:
        return None
    rows = [
        (source.name, run.rule, str(int(at)), degrees(angle))
        for source, run in compared.runs
        for at, angle in profile(source).items()
    ]
    said = [f"{source.name}: {degrees(run.error_angle)} at the first layer" for source, run in compared.runs]
    return Figure(
        panels=(sized.curves(lines, title="Error angle by depth (°)", x_label="layer, counted from the input"),),
        caption="Angle between the error that trains each layer and that of exact backpropagation, at each run's "
        f"last snapshot with values; {_lines(compared)}",
        alt="; ".join(said) + ".",
        data=Table("The numbers drawn.", ("run", "rule", "layer", "error angle"), tuple(rows), labels=3),
        name="error-by-depth",
        measures=("error_angle",),
        subjects=compared.subjects,
    )


def _lines(compared: _Compared) -> str:
    methods = {group.method for group in compared.groups}
    each = "rule" if len(methods) == len({source.rule for source, _ in compared.runs}) else "rule and its coefficients"
    if len(compared.groups) == len(compared.runs):
        return f"one line per run, one colour and marker per {each}."
    return (
        "one line per rule and setting, which is the mean over its seeds; bands: ± one standard deviation over seeds. "
        f"There is one colour and marker per {each}."
    )


def _brief(index: int, source: Source, run: Facts) -> Section:
    """Build the section on one run: its findings, its summary, its alignment maps and the command that repeats it."""
    measures = ("weight_angle", "error_angle", "step_size_number")
    maps = None  # backprop's would show zeros
    if not source.is_backprop:
        maps = alignment_maps(source, measures, layers_of(source.analysis, f"layers-{index}"))
    findings: Block = Text(f"{UNDIAGNOSED}: {NO_FINDINGS}")
    if source.findings:
        findings = entries(source.findings, [maps] if maps else [], source.analysis, source.path)
    texts = tuple(Text(said) for said in sentences(run))
    rest = tuple(block for block in (maps, repeat(source)) if block is not None)
    return Section(f"Run {source.name}", (findings, *texts, *rest))
