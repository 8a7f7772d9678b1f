"""Runs with planted faults, and healthy runs: the first finding should name the fault and its layer.

``python -m bench faults [FOLDER [NETWORK...]]`` trains, analyses and diagnoses the runs of `bench.evidence.planted` on
seeds on which no threshold was chosen, and writes the tables into docs/findings.md. It takes about half an hour on one
core. It keeps the runs in FOLDER, if that is given, and only trains those of the networks that are named. Expected
result: of the faults of full strength, 90 % are named with their layer, and no healthy run that learns has a finding of
high severity. The lines that it prints last belong in diagnostics/findings/thresholds.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bench.evidence.page import fill, table
from bench.evidence.planted import FAULTS, HEALTHY, NETWORKS, PAIRS, FaultCase, Trained, trained
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.kinds.base import FAULT, of_others
from wtdiag.diagnostics.findings.kinds.sizes import of_compared
from wtdiag.diagnostics.findings.thresholds import THRESHOLDS, Record

SEEDS = (6, 7)
"""Seeds of the tables. Thresholds were chosen on `CHOSEN`; detectors had been changed after seeing 0 to 5."""
CHOSEN = (100,)
SEVERAL = ("mlp", "conv", "resnet8")
LIMITS = ("angle-at-ceiling", "inherited-error", "not-aligning")
"""Kinds that a rule's own limits cause too: in a healthy run they are neither right nor wrong."""
COSTLY = 0.01


def cases(networks: Iterable[str], seeds: Sequence[int]) -> Iterator[FaultCase]:
    """Yield all runs: each fault on one of the seeds, which take turns, and each rule without a fault on all."""
    for network in networks:
        there = [name for name, fault in FAULTS.items() if network in fault.networks and not fault.later]
        for number, name in enumerate(there):
            yield FaultCase(network, (name,), FAULTS[name].rule, seeds[number % len(seeds)])
        for seed in seeds if network in SEVERAL else ():
            yield from (FaultCase(network, (), rule, seed) for rule in HEALTHY)
            yield from (FaultCase(network, pair, FAULTS[pair[0]].rule, seed) for pair in PAIRS[seed % 2 :: 2])


def later_cases(seeds: Sequence[int]) -> Iterator[FaultCase]:
    """Yield the runs of the faults that were counted later, on all seeds, and the healthy runs beside them."""
    for seed in seeds:
        for name, fault in FAULTS.items():
            yield from (FaultCase(at, (name,), fault.rule, seed) for at in fault.networks if fault.later)
        yield from (FaultCase(network, (), rule, seed) for network in SEVERAL for rule in HEALTHY)


@dataclass(frozen=True)
class Diagnosed:
    """A run, the findings on it, and what its faults cost in accuracy against the same run without them."""

    case: FaultCase
    findings: tuple[Finding, ...]
    learned: bool = True
    cost: float = 1.0

    @property
    def named(self) -> tuple[str, str | None] | None:
        """Kind and layer of the first finding, if it tells of a fault, of severity high or medium."""
        first = self.findings[0]
        fault = first.severity in ("high", "medium") and KINDS[first.kind].order == FAULT
        return (first.kind, first.layer) if fault else None

    @property
    def is_right(self) -> bool:
        """Whether the first finding names a planted fault and its layer.

        A fault everywhere has no layer. Of a kind that other layers come to by themselves, any finding may name it.
        """
        named = self.named
        if named is None:
            return False
        there = [each.layer for each in self.findings if each.kind == named[0] and each.severity in ("high", "medium")]
        return any(
            named[0] == kind and (layer in (None, named[1]) or (kind in LIMITS and layer in there))
            for kind, layer in self.case.planted
        )

    @property
    def strength(self) -> str:
        """The row of the table of networks to which it belongs."""
        if len(self.case.faults) > 1:
            return "two faults"
        fault = FAULTS[self.case.faults[0]]
        if fault.half:
            return "half strength, costing accuracy" if self.cost >= COSTLY else "half strength, costing none"
        return "full strength, from half-way on" if fault.since else "full strength"


def outcome(run: Trained, folder: Path) -> Diagnosed:
    """Diagnose a run, beside the same run without its faults where the cost of these matters."""
    half = len(run.case.faults) == 1 and FAULTS[run.case.faults[0]].half
    cost = trained(run.case.unharmed, folder).accuracy - run.accuracy if half else 1.0
    return Diagnosed(run.case, diagnose(run.analysis, run.run.config, run.run.metrics), run.learned, cost)


def records(outcomes: Sequence[Diagnosed]) -> dict[str, Record]:
    """Count for each planted kind how often it was named, and how often it was named correctly.

    A fault that costs nothing need not be named.
    """
    counted = {}
    single = [each for each in outcomes if len(each.case.faults) < 2]
    for kind in dict.fromkeys(each.case.planted[0][0] for each in single if each.case.faults):
        named = [each for each in single if each.named is not None and each.named[0] == kind]
        named = [each for each in named if each.case.faults or kind not in LIMITS]
        due = [each for each in single if each.case.faults and each.case.planted[0][0] == kind]
        due = [each for each in due if each.is_right or each.cost >= COSTLY]
        right = sum(each.is_right for each in due)
        counted[kind] = Record(right=right, named=len(named), planted=len(due), runs=len(single))
    return counted


def networks_table(outcomes: Sequence[Diagnosed]) -> str:
    """Return a table of how many faults were named, by network and strength."""
    rows = []
    faulty = [each for each in outcomes if each.case.faults]
    for strength in sorted({each.strength for each in faulty}):
        for network in NETWORKS:
            these = [each for each in faulty if (each.strength, each.case.network) == (strength, network)]
            if these:
                named, silent = sum(each.is_right for each in these), sum(each.named is None for each in these)
                rows.append((strength, network, len(these), named, silent, len(these) - named - silent))
    return table(["fault", "network", "runs", "named, with its layer", "silent", "something else"], rows)


def faults_table(outcomes: Sequence[Diagnosed]) -> str:
    """Return a table of how often each fault was named, on each network, and what was named instead."""
    rows = []
    for faults in dict.fromkeys(each.case.faults for each in outcomes if each.case.faults):
        these = [each for each in outcomes if each.case.faults == faults]
        cells = []
        for network in NETWORKS:
            there = [each for each in these if each.case.network == network]
            cells.append(f"{sum(each.is_right for each in there)} of {len(there)}" if there else "")
        instead = [f"{each.case.network}: {_told(each)}" for each in these if not each.is_right]
        kinds = " or ".join(kind for kind, _ in these[0].case.planted)
        rows.append((" and ".join(faults), these[0].case.rule, kinds, *cells, ", ".join(instead)))
    return table(["fault", "rule", "kind", *NETWORKS, "instead"], rows)


def healthy_table(outcomes: Sequence[Diagnosed]) -> str:
    """Return a table of the findings in healthy runs."""
    rows = []
    healthy = [each for each in outcomes if not each.case.faults]
    for rule in HEALTHY:
        these = [each for each in healthy if each.case.rule == rule]
        learned = [each for each in these if each.learned]
        high = sum(each.findings[0].severity == "high" for each in learned)
        first = dict.fromkeys(f"{each.named[0]} ({each.case.network})" for each in learned if each.named)
        rows.append((f"`{rule}`", f"{len(learned)} of {len(these)}", high, ", ".join(first)))
    return table(["rule", "runs that learn", "of these, with a finding of high severity", "first findings"], rows)


def _told(each: Diagnosed) -> str:
    cost = f", at a cost of {100 * each.cost:.1f} points" if each.cost != 1.0 else ""
    return " ".join(map(str, each.named or ["nothing"])) + cost


def thresholds_table(counted: Mapping[str, Record]) -> str:
    """Return the table of thresholds for the page, with the counts of their kinds."""
    rows = []
    for name, each in THRESHOLDS.items():
        row = f"`{name}`", each.kind, f"{each.value:g}", each.units, each.guards.replace("|", "\\|")
        of = counted.get(each.kind)
        shares = (f"{of.precision:.2g} ({of.right} of {of.named})", f"{of.recall:.2g}", of.runs) if of else ("", "", "")
        rows.append((*row, *shares))
    return table(["threshold", "kind", "value", "units", "what lies beyond it", "precision", "recall", "runs"], rows)


SIZES = {  # thresholds of feedback's size: the measure, whether relative to the others' median, and the faulty side
    "norm_ratio_high": ("norm_ratio", False, 1),
    "norm_ratio_excess": ("norm_ratio", True, 1),
    "gain_high": ("predicted_gain", False, 1),
    "gain_excess": ("predicted_gain", True, 1),
    "norm_ratio_low": ("norm_ratio", False, -1),
    "norm_ratio_deficit": ("norm_ratio", True, -1),
}


def sizes_table(runs: Iterable[tuple[str, str, xr.Dataset]]) -> str:
    """Return a table of the most extreme healthy and the least extreme faulty layer for each threshold of `SIZES`.

    A run is the kind of its fault and the faulty layer, both "" in a healthy run, and its analysis. Like the
    detectors, this looks for sizes that are too large in all snapshots, and for those that are too small in the last.
    """
    reached: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in SIZES}
    for kind, layer, analysis in runs:
        view = View(analysis, {}, pd.DataFrame())
        for name, (measure, relative, sign) in SIZES.items():
            sizes = of_compared(view, measure)
            sizes = sizes / of_others(sizes) if relative else sizes
            for here, column in zip(view.layers, sizes.T, strict=True):
                finite = column[np.isfinite(column)]
                if len(finite) and not kind:
                    reached[name][0].append(finite.max() if sign > 0 else finite[-1])
                elif len(finite) and here == layer and kind == THRESHOLDS[name].kind:
                    reached[name][1].append(finite.max() if sign > 0 else finite[-1])
    rows = []
    for name, (sound, bad) in reached.items():
        high = SIZES[name][2] > 0
        ends = (max(sound), min(bad)) if high else (min(sound), max(bad))
        rows.append((f"`{name}`", f"{ends[0]:.3g}", f"{THRESHOLDS[name].value:g}", f"{ends[1]:.3g}"))
    return table(["threshold", "most extreme healthy layer", "value", "least extreme faulty layer"], rows)


def run_sizes(folder: str = "") -> None:
    """Train and analyse the runs on which the thresholds of feedback's size were chosen, and write their table."""
    kinds = {THRESHOLDS[name].kind for name in SIZES}
    with tempfile.TemporaryDirectory() as aside:
        runs = []
        for case in cases(("mlp",), CHOSEN):
            if not case.faults or (len(case.faults) == 1 and case.planted[0][0] in kinds):
                kind, layer = case.planted[0] if case.faults else ("", "")
                runs.append((kind, str(layer), trained(case, Path(folder or aside)).analysis))
    fill("findings.md", "sizes", shown := sizes_table(runs))
    print(shown)


def run_later(folder: str = "") -> None:
    """Train and diagnose the runs of `later_cases`, and print the lines for diagnostics/findings/thresholds.py."""
    with tempfile.TemporaryDirectory() as aside:
        path = Path(folder or aside)
        outcomes = [outcome(trained(case, path), path) for case in later_cases(SEEDS)]
    for kind, record in records(outcomes).items():
        print(f'    "{kind}": {record},')


def run(folder: str = "", *networks: str, seeds: Sequence[int] = SEEDS) -> None:
    """Train and diagnose all runs, and print and write the tables; with networks named, only train theirs."""
    with tempfile.TemporaryDirectory() as aside:
        path = Path(folder or aside)
        runs = []
        for case in cases(networks or NETWORKS, seeds):
            runs.append(trained(case, path))
            print(case.network, *(case.faults or (case.rule,)), case.seed, sep="  ", flush=True)
        outcomes = [] if networks else [outcome(each, path) for each in runs]
    if networks:
        return
    tables = {
        "networks": networks_table(outcomes),
        "planted faults": faults_table(outcomes),
        "healthy runs": healthy_table(outcomes),
        "thresholds": thresholds_table(records(outcomes)),
    }
    for name, text in tables.items():
        print(f"\n{text}")
        if seeds is SEEDS:
            fill("findings.md", name, text)
    for kind, record in records(outcomes).items():
        print(f'    "{kind}": {record},')
