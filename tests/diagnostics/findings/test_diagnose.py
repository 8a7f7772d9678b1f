"""Each kind is found where it is planted, named first, and not elsewhere."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.diagnostics.findings.planted_runs import FAULTS, run_of
from tests.diagnostics.synthetic import CONFIG, healthy, metrics, plant
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.diagnostics.findings.thresholds import RECORDS, THRESHOLDS, confidence


def test_a_healthy_run_is_said_to_be_one():
    (finding,) = diagnose(healthy(), CONFIG, metrics())
    assert (finding.kind, finding.severity, finding.layer) == ("nothing-wrong", "none", None)
    assert (finding.first_step, finding.last_step) == (0, 230)
    assert "6 layers and 8 snapshots" in finding.summary
    assert all((kind in finding.meaning) != bool(about.command) for kind, about in KINDS.items())
    assert "could not look for" not in finding.meaning


@pytest.mark.parametrize("kind", FAULTS)
def test_the_first_finding_names_what_was_planted(kind):
    findings = diagnose(*run_of(kind))
    first = findings[0]
    assert (first.kind, first.layer) == (kind, "fc4")
    np.testing.assert_equal(first.confidence, confidence(kind))
    assert first.evidence
    assert "fc4" in first.summary
    numbers = [number for number in first.evidence if not np.isnan(number.value)]
    assert numbers or kind == "divergence"  # which is what config.json says of it
    for number in numbers:
        assert number.value > number.threshold if number.relation == ">" else number.value <= number.threshold
    said_to_be_fine = findings[-1].kind == "nothing-wrong"
    assert said_to_be_fine == (first.severity == "low")
    assert sum(finding.kind == "nothing-wrong" for finding in findings) == said_to_be_fine


FOLLOWERS = {"frozen-feedback": ["not-aligning", "noisy-feedback"], "feedback-too-slow": ["not-aligning"]}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_follows_comes_after_and_says_so(kind):
    """Beside the fault nothing is found but what follows from it, and this names the fault."""
    first, *others = diagnose(*run_of(kind))
    followers = [finding for finding in others if finding.kind != "nothing-wrong"]
    assert [finding.kind for finding in followers] == FOLLOWERS.get(kind, [])
    for finding in followers:
        assert finding.summary.endswith(f" It follows from {kind} in fc4.")
        assert SEVERITIES.index(finding.severity) >= SEVERITIES.index(first.severity)


def test_random_feedback_that_does_not_align_is_serious_only_where_it_costs():
    analysis = run_of("not-aligning")[0]
    assert diagnose(analysis, CONFIG, metrics())[0].severity == "medium"
    assert diagnose(analysis, CONFIG, metrics(loss_at_end=2.2))[0].severity == "high"


def test_a_step_too_large_for_a_while_without_consequence():
    analysis = plant(plant(healthy(), "fc4", since=2, step_size_number=1.2), "fc4", since=4, step_size_number=0.5)
    finding = diagnose(analysis, CONFIG, metrics())[0]
    assert (finding.kind, finding.severity) == ("step-too-large", "medium")
    assert (finding.first_step, finding.last_step) == (3, 10)


def test_how_far_off_decides_how_bad_it_is():
    for angle, severity in ((50.0, "low"), (70.0, "medium")):
        analysis = plant(healthy(), "fc4", predicted_angle=angle, weight_angle=angle)
        assert diagnose(analysis, CONFIG, metrics())[0].severity == severity
    for angle, end, severity in ((100.0, 2.2, "medium"), (130.0, 2.2, "high"), (130.0, 0.05, "medium")):
        analysis = plant(healthy(), "fc4", weight_angle=angle)
        assert diagnose(analysis, CONFIG, metrics(end))[0].severity == severity


def test_the_cause_named_is_the_first_of_a_chain():
    analysis = plant(healthy(), "fc4", step_size_number=3.0, norm_ratio=50.0, feedback_effective_rank=1.0)
    first, *others = diagnose(analysis, CONFIG, metrics())
    assert first.kind == "step-too-large"
    assert {each.kind for each in others} == {"feedback-too-large", "rank-collapse"}
    assert all(each.summary.endswith("It follows from step-too-large in fc4.") for each in others)


def test_findings_are_sorted():
    for kind in KINDS:
        findings = diagnose(*run_of(kind))
        assert [SEVERITIES.index(each.severity) for each in findings] == sorted(
            SEVERITIES.index(each.severity) for each in findings
        )
    analysis = plant(plant(healthy(), "fc3", since=4, norm_ratio=50.0), "fc5", since=2, norm_ratio=20.0)
    assert [each.layer for each in diagnose(analysis, CONFIG, metrics())[:2]] == ["fc5", "fc3"]  # the earlier first


def test_the_diagnosis_changes_nothing():
    analysis, config, log = run_of("noisy-feedback")
    before, logged = analysis.copy(deep=True), log.copy()
    diagnose(analysis, config, log)
    xr.testing.assert_identical(analysis, before)
    pd.testing.assert_frame_equal(log, logged)


def test_thresholds_and_kinds_belong_together():
    assert {threshold.kind for threshold in THRESHOLDS.values()} == KINDS.keys()
    assert RECORDS.keys() < KINDS.keys()
    assert len(RECORDS) > 5
    for name, record in RECORDS.items():
        assert 0 <= record.right <= min(record.named, record.planted)
        assert max(record.named, record.planted) <= record.runs
        assert record.right / record.runs < confidence(name) < 1
    assert np.isnan(confidence("of nobody's"))


@pytest.mark.parametrize(("accuracy", "severity"), [(0.3, "medium"), (0.11, "high")])
def test_what_was_learned_is_told_by_the_accuracy_and_not_by_a_loss_that_halved(accuracy, severity):
    log, config = metrics(1.9).assign(accuracy=accuracy), CONFIG | {"network": {"classes": 10}}
    assert diagnose(run_of("not-aligning")[0], config, log)[0].severity == severity
    assert diagnose(run_of("feedback-too-small")[0], config, log)[0].severity == severity
