"""Analyses that lack measures or hold senseless values, and findings on the disk."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.diagnostics.findings.planted_runs import DIVERGED, run_of
from tests.diagnostics.synthetic import CONFIG, LAYERS, STEPS, healthy, metrics
from wtdiag.diagnostics.analysis.reading import known
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.finding import read_findings, write_findings
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.thresholds import RECORDS


@pytest.mark.parametrize(("kind", "need"), [(name, need) for name, kind in KINDS.items() for need in kind.needs])
def test_a_kind_that_lacks_a_measure_is_silent_and_named(kind, need):
    analysis, config, log = run_of(kind)
    assert kind in [finding.kind for finding in diagnose(analysis, config, log)]
    assert kind not in [finding.kind for finding in diagnose(analysis.drop_vars(need), config, log)]
    without = diagnose(healthy().drop_vars(need), CONFIG, metrics())
    said = without[-1].meaning.split(" It could not look for ")[1]
    skipped, missing = said.split(", because the analysis has no values of ")
    assert kind in skipped.split(", ")
    assert missing == f"{known()[need].label}."


def test_any_measure_may_be_missing():
    everything = untouched = healthy()
    for kind in KINDS:
        planted = run_of(kind)[0]
        everything = everything.where(planted == untouched, planted)
    assert len({finding.kind for finding in diagnose(everything, DIVERGED, metrics())}) > 6
    for missing in untouched.data_vars:
        assert diagnose(everything.drop_vars(missing), DIVERGED, metrics())


def test_weights_alone_are_diagnosed():
    """As of a loop of one's own, analysed without its model."""
    names = ["weight_angle", "weight_angle_null", "weight_angle_null_sd", "norm_ratio", "forward_norm", "feedback_norm"]
    analysis = run_of("feedback-too-large")[0][names].drop_vars("carries_error")
    assert diagnose(analysis, {}, pd.DataFrame())[0].kind == "feedback-too-large"
    assert diagnose(run_of("not-aligning")[0][names], {}, pd.DataFrame())[0].kind == "not-aligning"
    assert "step-too-large" in diagnose(healthy()[names], {}, pd.DataFrame())[-1].meaning.split("could not look for")[1]


def test_findings_survive_the_disk(tmp_path):
    for kind in KINDS:
        findings = diagnose(*run_of(kind))
        write_findings(findings, tmp_path / "findings.json")
        back = read_findings(tmp_path / "findings.json")
        assert [dataclasses.replace(each, evidence=()) for each in back] == [
            dataclasses.replace(each, evidence=()) for each in findings
        ]


def test_what_was_never_measured_has_no_confidence_in_old_files_either(tmp_path):
    path = tmp_path / "findings.json"
    first = diagnose(*run_of("forward-step-too-large"))[0]
    write_findings([first], path)
    content = json.loads(path.read_text())
    assert content["findings"][0]["confidence"] is None
    content["format"], content["findings"][0]["confidence"] = 1, 0.5
    content["findings"].append(content["findings"][0] | {"kind": "sign-flip", "confidence": 0.8})
    path.write_text(json.dumps(content))
    np.testing.assert_equal([each.confidence for each in read_findings(path)], [np.nan, 0.8])


@pytest.mark.parametrize("snapshots", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("value", [None, np.nan, np.inf, -np.inf, 0.0, 1e300, -1.0])
def test_small_and_senseless_analyses(snapshots, layers, value):
    analysis = healthy(STEPS[:snapshots], LAYERS[:layers])
    if value is not None:
        analysis = xr.full_like(analysis, value)
    findings = diagnose(analysis, {"rule": "sa", "status": "diverged"}, pd.DataFrame({"loss": ["a"], "step": [{}]}))
    assert all(np.isnan(finding.confidence) == (finding.kind not in RECORDS) for finding in findings)
    if value is not None and np.isnan(value):
        assert [finding.kind for finding in findings if finding.severity == "high"] == ["divergence"]


senseless = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-300, 1e300, 0.5, 2.0, 90.0, 180.0])


@settings(max_examples=40)
@given(st.data())
def test_no_analysis_breaks_the_diagnosis(data):
    analysis = healthy(STEPS[:4], LAYERS[:3])
    names = sorted(map(str, analysis.data_vars))
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
        size = analysis[name].size
        values = data.draw(st.lists(senseless, min_size=size, max_size=size))
        analysis[name] = analysis[name].dims, np.reshape(values, analysis[name].shape)
    loss = data.draw(st.lists(senseless, max_size=12))
    log = pd.DataFrame({"step": range(len(loss)), "loss": loss, "feedback_lr": loss})
    findings = diagnose(analysis, CONFIG, log)
    assert findings
    assert (findings[-1].kind == "nothing-wrong") == all(each.severity in ("low", "none") for each in findings)


def test_variables_of_other_shapes_are_passed_over():
    analysis = healthy()
    analysis["norm_ratio"] = ("mode",), np.ones(3)
    analysis["weight_angle"] = ("layer",), np.array(list("abcdef"))
    analysis["step_size_number"] = analysis.step_size_number.transpose("layer", "step")
    analysis = analysis.assign_coords(carries_error=("step", np.zeros(8)), direct=("layer", list("abcdef")))
    meaning = diagnose(analysis, CONFIG, metrics())[-1].meaning
    assert meaning.endswith(" no values of norm ratio, weight angle.")
