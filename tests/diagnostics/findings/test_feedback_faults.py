"""Where the line lies between feedback at fault and feedback that is as it should be."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.diagnostics.findings.planted_runs import run_of
from tests.diagnostics.synthetic import CONFIG, LAYERS, STEPS, healthy, metrics, plant
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.kinds.motion import relaxations
from wtdiag.diagnostics.findings.thresholds import THRESHOLDS, limit


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


def test_feedback_of_one_direction_is_why_the_errors_from_there_on_have_one():
    analysis, config, log = run_of("rank-collapse")
    for layer in ("fc3", "fc4"):
        plant(analysis, layer, sent_effective_rank=1.0)
    first, *others = diagnose(analysis, config, log)
    assert (first.kind, first.layer) == ("rank-collapse", "fc4")
    of_errors = [each for each in others if each.kind == "error-rank-collapse"]
    assert {each.layer for each in of_errors} == {"fc3", "fc4"}
    assert all(each.summary.endswith("It follows from rank-collapse in fc4.") for each in of_errors)
