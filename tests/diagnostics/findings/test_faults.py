"""A few of the runs of ``python -m bench faults``, cut short; and that the page shows what it measured."""

import re

import pytest

import wtdiag
from bench.evidence.faults import (
    FAULTS,
    HEALTHY,
    SEEDS,
    FaultyRun,
    faulty,
    healthy,
    records,
    sizes_table,
    thresholds_table,
)
from bench.evidence.page import DOCS
from tests.diagnostics.synthetic import CONFIG, metrics, plant
from tests.diagnostics.synthetic import healthy as fine
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.thresholds import RECORDS, Record, limit


@pytest.mark.parametrize(
    ("name", "seed"),
    [("target ×10", 200), ("left out of the optimiser", 201), ("step ×50", 202), ("noise in each step", 203)],
)
def test_a_planted_fault_is_named(tmp_path, name, seed):
    layer, findings = faulty(FAULTS[name], seed, tmp_path / "run", steps=60)
    assert (findings[0].kind, findings[0].layer) == (FAULTS[name].kind, layer)


@pytest.mark.parametrize(("rule", "seed"), [("sa", 200), ("usf", 201)])
def test_a_healthy_run_has_no_finding_of_high_severity(tmp_path, rule, seed):
    assert "high" not in [finding.severity for finding in healthy(rule, seed, tmp_path / "run", epochs=3)]


@pytest.mark.parametrize("rule", ["ia", "fa"])
def test_a_learning_rate_far_too_large_is_named(tmp_path, rule):
    settings = wtdiag.Settings(rule=rule, depth=4, lr=1000.0, epochs=1, seed=200, device="cpu")
    for _ in wtdiag.Training(settings, tmp_path / "run"):
        pass
    found = wtdiag.diagnose(tmp_path / "run", wtdiag.analyze(tmp_path / "run"))
    assert (found[0].kind, found[0].layer, found[0].severity) == ("divergence", "fc4", "high")
    assert "Lower --lr, which reached 1e+03." in found[0].advice


@pytest.mark.parametrize("rule", ["ia", "fa"])
def test_before_training_nothing_is_inherited(tmp_path, rule):
    for _ in wtdiag.Training(wtdiag.Settings(rule=rule, epochs=0, device="cpu"), tmp_path / "run"):
        pass
    found = wtdiag.diagnose(tmp_path / "run", wtdiag.analyze(tmp_path / "run"))
    assert [each.kind for each in found] == ["nothing-wrong"]


def test_precision_and_recall_are_counted():
    def outcome(planted, *named):
        return FaultyRun(planted, diagnose(*named))

    gain = plant(fine(), "fc4", norm_ratio=10.0), CONFIG, metrics()
    sign = plant(fine(), "fc4", weight_angle=170.0), CONFIG, metrics()
    outcomes = [
        outcome(("feedback-too-large", "fc4"), *gain),
        outcome(("feedback-too-large", "fc3"), *gain),  # the wrong layer
        outcome(("feedback-too-large", "fc4"), *sign),  # the wrong kind
        outcome(("sign-flip", "fc4"), *sign),
        outcome(None, *gain),  # a false alarm
        outcome(None, fine(), CONFIG, metrics()),
    ]
    counted = records(outcomes)
    assert counted.keys() == {"feedback-too-large", "sign-flip"}
    assert counted["feedback-too-large"] == Record(right=1, named=3, planted=3, runs=6)
    assert counted["sign-flip"] == Record(right=1, named=2, planted=1, runs=6)
    assert (counted["sign-flip"].precision, counted["sign-flip"].recall) == (0.5, 1.0)


def test_the_page_shows_what_was_measured():
    page = (DOCS / "findings.md").read_text(encoding="utf-8")
    assert thresholds_table(RECORDS) in page
    named, planted = map(int, re.search(r"named: (\d+) of (\d+)", page).groups())
    assert planted == len(SEEDS) * len(FAULTS)
    assert named / planted >= 11 / 12
    assert {record.runs for record in RECORDS.values()} == {len(SEEDS) * (len(FAULTS) + len(HEALTHY))}
    assert RECORDS.keys() == {fault.kind for fault in FAULTS.values()}


def test_the_table_of_sizes_tells_the_sound_from_the_faulty():
    large, small = plant(fine(), "fc4", norm_ratio=10.0, predicted_gain=9.0), plant(fine(), "fc3", norm_ratio=0.1)
    cases = [("", "", fine()), ("feedback-too-large", "fc4", large), ("feedback-too-small", "fc3", small)]
    rows = {row.split("|")[1].strip(" `"): row.split("|")[2:5] for row in sizes_table(cases).splitlines()[2:]}
    assert [float(cell) for cell in rows["norm_ratio_high"]] == [1.1, limit("norm_ratio_high"), 10]
    assert [float(cell) for cell in rows["gain_high"]] == [1.01, limit("gain_high"), 9]
    assert [float(cell) for cell in rows["norm_ratio_low"]] == [1, limit("norm_ratio_low"), 0.1]
