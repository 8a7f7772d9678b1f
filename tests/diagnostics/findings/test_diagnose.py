"""Each kind is found where it is planted, named first, and not elsewhere; nothing else can break the diagnosis."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.diagnostics.synthetic import CONFIG, LAYERS, STEPS, healthy, metrics, plant
from wtdiag.diagnostics.analysis.reading import known
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.finding import read_findings, write_findings
from wtdiag.diagnostics.findings.kinds import KINDS
from wtdiag.diagnostics.findings.kinds.base import FAULT
from wtdiag.diagnostics.findings.kinds.motion import relaxations
from wtdiag.diagnostics.findings.severity import SEVERITIES
from wtdiag.diagnostics.findings.thresholds import RECORDS, THRESHOLDS, confidence, limit

DIVERGED = CONFIG | {"status": "diverged", "diverged": {"step": 17, "what": "norm of the feedback of fc4"}}
FAULTS = [name for name, kind in KINDS.items() if kind.order == FAULT]
"""Kinds that a fault of one layer is planted for; test_training has the others."""


def run_of(kind):
    """A run with one fault of this kind in fc4: its analysis, config and metrics."""
    analysis, config, log = healthy(), CONFIG, metrics()
    match kind:
        case "step-too-large":
            plant(analysis, "fc4", step_size_number=2.5)
        case "divergence":
            config = DIVERGED
        case "forward-step-too-large":
            plant(analysis, "fc4", relative_update=1.5)
        case "feedback-too-large":
            plant(analysis, "fc4", norm_ratio=10.0, predicted_gain=10.0)
        case "feedback-too-small":
            plant(analysis, "fc4", norm_ratio=0.1)
        case "bn-runaway":
            plant(analysis, "fc4", forward_norm=100.0, feedback_norm=100.0)
        case "frozen-feedback":
            plant(analysis, "fc4", since=0, feedback_norm=8.0, weight_angle=90.2, rest_distance=1.4)
        case "feedback-too-slow":
            plant(analysis, "fc4", since=0, relaxation_time=5000.0, tracking_lag=5.0, rest_distance=1.4)
            plant(analysis, "fc4", since=0, weight_angle=90.2)
        case "noisy-feedback":
            plant(analysis, "fc4", rest_distance=1.5, weight_angle=60.0)
        case "adam-step-too-large":
            plant(analysis, "fc4", since=0, relative_step=3.0, rest_distance=1.5, relaxation_time=np.nan)
        case "adam-step-too-small":
            plant(analysis, "fc4", since=0, travel_time=500.0, rest_distance=1.4, relaxation_time=np.nan)
        case "angle-at-ceiling":
            plant(analysis, "fc4", predicted_angle=50.0, weight_angle=51.0)
        case "not-aligning":
            plant(analysis, "fc4", since=0, weight_angle=90.3)
        case "sign-flip":
            plant(analysis, "fc4", weight_angle=170.0, sign_agreement=0.05)
        case "error-rank-collapse":
            plant(analysis, "fc4", sent_effective_rank=1.0)
        case "residual-growth":
            plant(analysis, "fc4", residual_growth=50.0)
        case "rank-collapse":
            plant(analysis, "fc4", feedback_effective_rank=1.0)
        case "inherited-error":
            for layer in ("fc2", "fc3", "fc4"):
                plant(analysis, layer, error_angle_inherited=70.0, error_angle_total=75.0)
        case "signal-below-floor":
            for layer in ("fc1", "fc2", "fc3", "fc4"):
                plant(analysis, layer, dead_units=1.0, below_floor=1.0)
    return analysis, config, log


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


def test_the_cause_of_a_divergence_comes_before_it():
    analysis, _, log = run_of("step-too-large")
    log.loc[log.step > 16, "loss"] = np.nan
    first, second, *_ = diagnose(analysis, DIVERGED, log)
    assert (first.kind, second.kind) == ("step-too-large", "divergence")
    assert "7 steps before it broke" in first.summary
    assert first.advice[0].startswith("Lower the feedback learning rate from 1 to 0.16: the step-size number of fc4, ")
    assert "It follows from step-too-large in fc4." in second.summary


@pytest.mark.parametrize(
    ("diverged", "layer"),
    [
        ({"step": 17, "what": "norm of the weight of fc2"}, "fc2"),
        ({"step": 17, "what": "norm of the weight of elsewhere"}, None),
        ({"step": 17, "what": "loss"}, None),
        ({"step": "soon"}, None),
        ({"step": 10**400, "what": "loss"}, None),
        (None, None),
    ],
)
def test_divergence_as_the_run_tells_it(diverged, layer):
    finding = diagnose(healthy(), {"status": "diverged", "diverged": diverged}, metrics())[0]
    assert (finding.kind, finding.layer) == ("divergence", layer)


@pytest.mark.parametrize(
    ("broken", "layer"),
    [
        ({"feedback_norm": ["fc4"], "forward_norm": ["fc1", "fc2", "fc3"]}, "fc4"),
        ({"feedback_norm": ["fc3", "fc4"], "forward_norm": ["fc3"]}, "fc4"),
        ({"feedback_norm": [], "forward_norm": ["fc3", "fc5", "fc6"]}, "fc3"),
        ({"feedback_norm": LAYERS, "forward_norm": LAYERS}, None),
    ],
)
def test_divergence_as_the_snapshots_show_it(broken, layer):
    analysis = healthy()
    for measure, layers in broken.items():
        for name in layers:
            plant(analysis, name, since=5, **{measure: np.nan})
    finding = next(each for each in diagnose(analysis, CONFIG, metrics()) if each.kind == "divergence")
    assert (finding.layer, finding.first_step) == (layer, 80)


def test_divergence_as_the_metrics_show_it():
    log = metrics()
    log.loc[100:, "loss"] = np.inf
    finding = diagnose(healthy(), {}, log)[0]
    assert (finding.kind, finding.layer, finding.evidence[0].step) == ("divergence", None, 101)


def risen(factor, since=150):
    """A log whose loss is so many times its first value from a step on."""
    log = metrics()
    log.loc[log.step >= since, "loss"] = factor * log.loss.iloc[0]
    return log.assign(lr=np.linspace(0, 40.0, len(log)))


def test_a_loss_far_above_its_first_value_is_a_divergence():
    assert diagnose(healthy(), CONFIG, risen(9.9))[0].kind == "nothing-wrong"
    finding = diagnose(healthy(), CONFIG, risen(10.1))[0]
    assert (finding.kind, finding.layer, finding.severity, finding.first_step) == ("divergence", None, "high", 80)
    assert "10.1 times its first value; it has been above 10 times that value since step 150." in finding.summary
    first = metrics().loss.iloc[0]
    assert (finding.evidence[0].value, finding.evidence[0].threshold) == pytest.approx((10.1 * first, 10 * first))


def test_a_loss_that_came_down_again_or_rose_in_the_last_two_lines_alone_is_none():
    log = risen(50.0)
    log.loc[log.index[-1], "loss"] = 1.0
    assert diagnose(healthy(), CONFIG, log)[0].kind == "nothing-wrong"
    assert diagnose(healthy(), CONFIG, risen(50.0, since=229))[0].kind == "nothing-wrong"
    assert diagnose(healthy(), CONFIG, risen(50.0, since=228))[0].kind == "divergence"
    negative = metrics().assign(loss=np.linspace(-1, -5, 230))  # all of them above ten times the first
    assert diagnose(healthy(), CONFIG, negative)[0].kind == "nothing-wrong"


def test_the_weights_that_grew_with_the_loss_are_named_before_what_follows():
    analysis = plant(plant(healthy(), "fc5", since=6, forward_norm=8e6, norm_ratio=1e-6), "fc2", forward_norm=80.0)
    plant(analysis, "fc3", forward_norm=8e9)  # to whose size the loss is blind
    for layer in ("fc2", "fc5", "fc6"):
        plant(analysis, layer, since=0, radial_cosine=0.2)
    first, second, *others = diagnose(analysis, CONFIG, risen(1e6, since=151))
    assert (first.kind, first.layer, first.first_step) == ("divergence", "fc5", 150)
    assert "the weights of fc5 have grown by a factor of 1e+06." in first.summary
    assert first.advice[0].startswith("Lower the learning rate of the forward weights from 40 to 4.")
    shrunk = next(each for each in (second, *others) if each.kind == "feedback-too-small")
    assert "It follows from divergence in fc5." in shrunk.summary


def test_a_norm_ratio_says_whether_weights_grew_or_feedback_shrank():
    grown = plant(healthy(), "fc4", forward_norm=800.0, norm_ratio=0.01)
    grown["radial_cosine"][:] = 0.2
    finding = diagnose(grown, CONFIG, metrics())[0]
    assert (finding.kind, finding.layer, finding.severity) == ("feedback-too-small", "fc4", "medium")
    assert "W has grown by a factor of 100, while B has not shrunk" in finding.summary
    assert "Lower the learning rate of the forward weights" in finding.advice[0]
    analysis = plant(healthy(), "fc4", norm_ratio=0.01)
    analysis["feedback_norm"][3:, 3] *= 0.01
    shrunk = diagnose(analysis, CONFIG, metrics(2.2))[0]
    assert (shrunk.kind, shrunk.severity) == ("feedback-too-small", "high")
    assert diagnose(analysis, CONFIG, metrics())[0].severity == "medium"  # the network learned all the same
    assert "B has shrunk to 0.01" in shrunk.summary
    assert not any("learning rate of the forward weights" in text for text in shrunk.advice)
    analysis = plant(healthy(), "fc4", since=0, norm_ratio=0.1)
    analysis["feedback_norm"][:, 3] *= 0.1
    small = diagnose(analysis, CONFIG, metrics(2.2))[0]
    assert (small.kind, small.severity) == ("feedback-too-small", "high")
    assert "grown" not in small.summary
    assert "shrunk" not in small.summary


def test_relaxation_times_are_those_of_the_snapshot_that_an_interval_leaves():
    time = ("step", "layer"), np.array([[2.0, np.nan], [5.0, 4.0], [1.0, 4.0]])
    analysis = xr.Dataset({"relaxation_time": time}, {"step": [0, 10, 30], "layer": ["fc1", "fc2"]})
    passed = relaxations(View(analysis, {}, pd.DataFrame()))
    np.testing.assert_array_equal(passed, [[0, np.nan], [10 / 2, np.nan], [10 / 2 + 20 / 5, np.nan]])


@pytest.mark.parametrize(("predicted", "severity"), [((35.0, 65.0), "medium"), ((65.0, 35.0), "low")])
def test_what_a_ceiling_costs_is_told_at_the_last_snapshot(predicted, severity):
    analysis = healthy()
    for since, angle in zip((3, 7), predicted, strict=True):
        plant(analysis, "fc4", since=since, predicted_angle=angle, weight_angle=angle)
    finding = diagnose(analysis, CONFIG, metrics())[0]
    assert (finding.kind, finding.layer, finding.severity) == ("angle-at-ceiling", "fc4", severity)
    assert finding.evidence[0].value == predicted[1]


@pytest.mark.parametrize(("snapshots", "kind"), [(2, "nothing-wrong"), (3, "frozen-feedback")])
def test_feedback_is_frozen_once_three_snapshots_hold_the_same(snapshots, kind):
    analysis = plant(healthy(), "fc4", since=len(STEPS) - snapshots, feedback_norm=8.0)
    finding = diagnose(analysis, CONFIG, metrics())[0]
    assert finding.kind == kind
    assert finding.first_step == (STEPS[-snapshots] if kind == "frozen-feedback" else 0)


def test_a_norm_ratio_is_held_against_the_median_of_the_other_layers():
    """One more layer that is far off, as a mean would be drawn along, hides nothing."""
    analysis = plant(plant(healthy(), "fc4", since=0, norm_ratio=6.0), "fc6", since=0, norm_ratio=100.0)
    found = {each.layer: each for each in diagnose(analysis, CONFIG, metrics()) if each.kind == "feedback-too-large"}
    assert found.keys() == {"fc4", "fc6"}


def test_who_costs_the_most_is_named_only_if_it_lies_above():
    def said(**costs):
        analysis, config, log = run_of("inherited-error")
        for layer, cost in costs.items():
            plant(analysis, layer, attribution_angle=cost)
        return diagnose(analysis, config, log)[0].summary

    assert said(fc5=40.0).endswith("75° off exact backprop, and most of this is due to fc5.")
    assert said(fc5=40.0, fc6=30.0).endswith("75° off exact backprop, and most of this is due to fc5.")
    assert said(fc5=40.0, fc6=38.0).endswith("75° off exact backprop, and most of this is due to fc5 and fc6 together.")
    for layer in ("fc2", "fc4"):  # the stretch that is said to inherit
        assert said(fc5=40.0, **{layer: 41.0}).endswith("75° off exact backprop.")
    for unknown in (np.nan, -3.0):
        assert said(**dict.fromkeys(LAYERS, unknown)).endswith("75° off exact backprop.")


def test_nothing_is_inherited_by_chance():
    analysis, config, log = run_of("inherited-error")
    at_chance = analysis.assign(error_angle_local_null=analysis.weight_angle_null)
    at_chance = at_chance.assign(error_angle_local_null_sd=0 * analysis.weight_angle_null + 3.0)
    assert diagnose(at_chance, config, log)[0].kind == "inherited-error"  # its local angles are far below chance
    at_chance["error_angle_local"][:, 1:] = 82.0
    at_chance["error_angle_inherited"][:, 1:] = 95.0
    assert diagnose(at_chance, config, log)[0].kind == "nothing-wrong"
    plant(at_chance, "fc5", error_angle_local=80.0)  # below 90° - 3 · 3°
    assert diagnose(at_chance, config, log)[0].kind == "inherited-error"


def test_what_was_inherited_exceeds_the_local_angle_by_a_margin():
    analysis, config, log = run_of("inherited-error")
    for beyond, kind in ((4.9, "nothing-wrong"), (5.1, "inherited-error")):
        for layer in LAYERS[1:4]:
            plant(analysis, layer, error_angle_local=60.0, error_angle_inherited=60.0 + beyond)
        assert diagnose(analysis, config, log)[0].kind == kind


def test_fixed_feedback_is_not_frozen():
    fixed = healthy().drop_vars(["predicted_angle", "rest_distance"])
    fixed["feedback_norm"][:] = 8.0
    fixed = fixed.assign_coords(fixed=("layer", [True] * len(LAYERS)))
    assert diagnose(fixed, CONFIG, metrics())[0].kind == "nothing-wrong"
    one = healthy().drop_vars(["predicted_angle", "rest_distance"])
    plant(one, "fc4", since=0, feedback_norm=8.0)
    assert diagnose(one, CONFIG, metrics())[0].kind == "frozen-feedback"
    one = one.assign_coords(fixed=("layer", [name == "fc4" for name in LAYERS]))
    assert diagnose(one, CONFIG, metrics())[0].kind == "nothing-wrong"


def test_frozen_only_while_the_weights_move_and_other_feedback_does():
    analysis = healthy()
    plant(analysis, "fc4", since=0, feedback_norm=8.0, forward_norm=8.0)  # a layer that is not trained at all
    assert diagnose(analysis, CONFIG, metrics())[0].kind == "nothing-wrong"


def test_feedback_that_no_optimiser_holds_is_frozen_in_the_whole_network():
    analysis = healthy()
    analysis["feedback_norm"][:] = 8.0
    finding = diagnose(analysis, CONFIG, metrics())[0]
    assert (finding.kind, finding.severity) == ("frozen-feedback", "high")
    assert finding.summary.endswith("has not changed since step 0, and neither has that of any other layer.")
    still = analysis.assign(forward_norm=0 * analysis.forward_norm + 8.0)  # nothing is trained
    still["feedback_norm"][:] = 8.0
    assert diagnose(still, CONFIG, metrics())[0].kind != "frozen-feedback"


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


def test_norm_ratios_that_multiply():
    for sign, kind in ((1, "feedback-too-large"), (-1, "feedback-too-small")):
        analysis = healthy()
        analysis["log_norm_ratio_sum"][:] = sign * 12.0
        finding = diagnose(analysis, CONFIG, metrics())[0]
        assert (finding.kind, finding.layer, finding.severity) == (kind, None, "medium")
        assert "1.6e+05 through the feedback of 5 layers" in finding.summary


def test_norm_ratio_and_gain_are_held_against_thresholds_of_their_own(monkeypatch):
    for measure, said, threshold in (
        ("norm_ratio", "has a norm ratio of 10", "norm_ratio_high"),
        ("predicted_gain", "is heading for a gain of 10", "gain_high"),
    ):
        analysis = plant(healthy(), "fc4", **{measure: 10.0})
        finding = diagnose(analysis, CONFIG, metrics())[0]
        assert (finding.kind, finding.layer) == ("feedback-too-large", "fc4")
        assert said in finding.summary
        assert (finding.evidence[0].measure, finding.evidence[0].threshold) == (measure, limit(threshold))
        with monkeypatch.context() as patch:
            patch.setitem(THRESHOLDS, threshold, dataclasses.replace(THRESHOLDS[threshold], value=11.0))
            assert diagnose(analysis, CONFIG, metrics())[0].kind == "nothing-wrong"


def test_feedback_of_zero_is_too_small():
    analysis = plant(healthy(), "fc4", weight_angle=np.nan, norm_ratio=0.0, feedback_norm=0.0, below_floor=1.0)
    first, second, *_ = diagnose(analysis, CONFIG, metrics())
    assert (first.kind, first.layer) == ("feedback-too-small", "fc4")
    assert second.kind == "signal-below-floor"


def test_direct_feedback_has_no_size_to_compare():
    analysis = healthy()
    analysis["weight_angle"][:] = np.nan
    analysis["norm_ratio"][:] = 50.0
    assert diagnose(analysis, {"rule": {"name": "dfa"}}, metrics())[-1].kind == "nothing-wrong"


def test_direct_feedback_inherits_nothing():
    analysis, config, log = run_of("inherited-error")
    analysis = analysis.assign_coords(direct=("layer", [False] + [True] * 5))
    assert diagnose(analysis, config, log)[0].kind == "nothing-wrong"


def test_a_line_of_metrics_without_a_loss_is_no_divergence():
    log = pd.concat([metrics(), pd.DataFrame({"step": [40, 230], "event": ["loss", "evaluated"]})])
    assert diagnose(healthy(), CONFIG, log)[0].kind == "nothing-wrong"


def test_a_solved_task_leaves_no_error_and_that_is_no_fault():
    analysis = healthy()
    analysis["below_floor"][-1], analysis["dead_units"][-1], analysis["error_norm_ratio"][-1] = 1.0, 1.0, np.nan
    assert diagnose(analysis, CONFIG, metrics())[0].kind == "nothing-wrong"


def test_a_layer_without_input_is_not_to_blame():
    analysis = plant(run_of("signal-below-floor")[0], "fc5", dead_units=1.0, activation_norm=0.0)
    first, *others = diagnose(analysis, CONFIG, metrics())
    assert (first.kind, first.layer) == ("signal-below-floor", "fc4")
    assert not others
    analysis["activation_norm"][:] = 1.0
    assert diagnose(analysis, CONFIG, metrics())[0].layer == "fc5"


def test_dead_units_are_seen_without_norms():
    analysis = plant(healthy(), "fc3", since=0, dead_units=1.0, below_floor=np.nan, error_norm_ratio=np.nan)
    assert [(each.kind, each.layer) for each in diagnose(analysis, CONFIG, metrics())] == [
        ("signal-below-floor", "fc3")
    ]


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


def _slow_everywhere(analysis):
    for layer in LAYERS:
        plant(analysis, layer, since=0, relaxation_time=500.0, tracking_lag=2.0, rest_distance=0.8)
    return analysis


def test_a_rule_that_is_slow_everywhere_is_one_finding():
    findings = diagnose(_slow_everywhere(healthy()), CONFIG, metrics())
    slow = [finding for finding in findings if finding.kind == "feedback-too-slow"]
    assert [finding.layer for finding in slow] == [None]
    assert "in 5 of 5 layers" in slow[0].summary  # the first sends no error


def test_a_slow_rule_does_not_hide_what_is_wrong_in_one_layer():
    analysis = plant(
        _slow_everywhere(healthy()), "fc4", feedback_norm=np.linspace(75, 85, 5), norm_ratio=10.0, rest_distance=9
    )
    findings = diagnose(analysis, CONFIG, metrics())
    assert [(finding.kind, finding.layer) for finding in findings[:2]] == [
        ("noisy-feedback", "fc4"),
        ("feedback-too-slow", None),
    ]
    alone = plant(healthy(), "fc4", since=0, relaxation_time=500.0, tracking_lag=2.0, rest_distance=1.4)
    alone = plant(alone, "fc4", feedback_norm=np.linspace(75, 85, 5), norm_ratio=10.0, rest_distance=9)
    assert diagnose(alone, CONFIG, metrics())[0].kind == "noisy-feedback"
    first = diagnose(plant(_slow_everywhere(healthy()), "fc4", since=0, relaxation_time=5e3), CONFIG, metrics())[0]
    assert (first.kind, first.layer) == ("feedback-too-slow", "fc4")


@pytest.mark.parametrize(("gain", "kind"), [(1.0, "noisy-feedback"), (10.0, "feedback-too-large")])
def test_feedback_that_its_rule_did_not_enlarge_is_disturbed(gain, kind):
    rest = 9.9 if gain == 1.0 else 0.1
    analysis = plant(
        healthy(), "fc4", feedback_norm=np.linspace(75, 85, 5), norm_ratio=10.0, predicted_gain=gain, rest_distance=rest
    )
    for missing in ([], ["relaxation_time", "step_size_number", "tracking_lag"]):  # as where Adam moves B
        found = diagnose(analysis.drop_vars(missing), CONFIG, metrics())[0]
        assert (found.kind, found.layer) == (kind, "fc4")


def test_direct_feedback_is_not_held_against_weights():
    for kind in ("not-aligning", "sign-flip"):
        analysis = run_of(kind)[0].assign_coords(direct=("layer", [True] * len(LAYERS)))
        assert [finding.kind for finding in diagnose(analysis, CONFIG, metrics())] == ["nothing-wrong"]


@pytest.mark.parametrize(("accuracy", "kind"), [(0.88, "nothing-wrong"), (0.1, "divergence")])
def test_a_network_that_is_right_has_not_diverged_however_large_its_loss(accuracy, kind):
    log = metrics()
    log["loss"] = np.where(log.step > 100, 50.0, log.loss)
    log["accuracy"] = accuracy
    config = CONFIG | {"network": {"classes": 10}}
    assert diagnose(healthy(), config, log)[0].kind == kind
    assert np.isnan(View(healthy(), config, log).collapse) == (kind == "nothing-wrong")


@pytest.mark.parametrize(("accuracy", "severity"), [(0.3, "medium"), (0.11, "high")])
def test_what_was_learned_is_told_by_the_accuracy_and_not_by_a_loss_that_halved(accuracy, severity):
    log, config = metrics(1.9).assign(accuracy=accuracy), CONFIG | {"network": {"classes": 10}}
    assert diagnose(run_of("not-aligning")[0], config, log)[0].severity == severity
    assert diagnose(run_of("feedback-too-small")[0], config, log)[0].severity == severity
