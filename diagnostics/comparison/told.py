"""A comparison in three sentences: how accurate the rules are, how far their errors turn, and what is wrong most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from wtdiag.diagnostics.analysis.sentences import listed
from wtdiag.diagnostics.findings.finding import Finding
from wtdiag.diagnostics.findings.severity import SEVERITIES

NOTHING = "nothing-wrong"
_MOST = 6  # the most runs that a sentence names


def told(table: pd.DataFrame, findings: Mapping[str, Sequence[Finding]]) -> list[str]:
    """Return what a comparison says as sentences; none on accuracy and errors if its runs differ in more than the rule.

    Parameters
    ----------
    table
        As `diagnostics.comparison.compare.compare` returns it.
    findings
        Those of each run, by its name.

    Examples
    --------
    >>> row = {"conditions": "mlp", "rule": "fa", "reference": "bp", "reference_mean": 0.983}
    >>> accuracy = row | {"measure": "test_accuracy", "mean": 0.947, "difference": -0.036}
    >>> for sentence in told(pd.DataFrame([accuracy, row | {"measure": "error_angle", "mean": 77.0}]), {}):
    ...     print(sentence)
    bp has a test accuracy of 98.3 %; fa is 3.6 points below.
    The error of the first layer is at 77° to that of backpropagation under fa; 90° is chance.
    Nothing wrong was found.
    """
    alike = len(table) > 0 and len(set(zip(table["conditions"], table["reference"], strict=True))) == 1
    sentences = [_accuracy(table), _errors(table)] if alike else []
    return [*filter(None, sentences), _worst(findings)]


def _accuracy(table: pd.DataFrame) -> str:
    rows = table[table["measure"].str.endswith("_accuracy")].sort_values("difference", ascending=False)
    if not len(rows):
        return ""
    first = rows.iloc[0]
    gaps = []
    broken = rows["diverged"] > 0 if "diverged" in rows else [False] * len(rows)
    for rule, difference, diverged in zip(rows["rule"], 100 * rows["difference"], broken, strict=True):
        named = f"{rule}, which diverged and counts as answering at chance," if diverged else rule
        side = "above" if difference > 0 else "below"
        alike = abs(difference) < 0.05
        gaps.append(f"{named} is as accurate" if alike else f"{named} is {abs(difference):.1f} points {side}")
    on = first["measure"].removesuffix("_accuracy")
    return f"{first['reference']} has a {on} accuracy of {100 * first['reference_mean']:.1f} %; {listed(gaps)}."


def _errors(table: pd.DataFrame) -> str:
    rows = table[table["measure"] == "error_angle"].sort_values("mean")
    if not len(rows):
        return ""
    first, *others = zip(rows["rule"], rows["mean"], strict=True)
    angles = [f"{first[1]:.0f}° to that of backpropagation under {first[0]}"]
    angles += [f"{mean:.0f}° under {rule}" for rule, mean in others]
    return f"The error of the first layer is at {listed(angles)}; 90° is chance."


def _worst(findings: Mapping[str, Sequence[Finding]]) -> str:
    wrong = [(name, each) for name, found in findings.items() for each in found if each.kind != NOTHING]
    if not wrong:
        return "Nothing wrong was found."
    name, worst = min(wrong, key=lambda pair: SEVERITIES.index(pair[1].severity))
    said = f"The most severe finding is in {name}: {worst.summary.split('. ')[0].removesuffix('.')}."
    others = dict.fromkeys(run for run, each in wrong if each.severity == worst.severity and run != name)
    if not others:
        return said
    where = listed([*others]) if len(others) <= _MOST else f"{len(others)} other runs"
    return f"{said} Findings as severe are in {where}."
