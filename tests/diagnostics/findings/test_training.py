"""What a run reached: trained too briefly, without effect, or behind another; from curves whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from bench.evidence.undertrained import Judged, judged_table
from tests.diagnostics.synthetic import CONFIG, healthy, plant
from wtdiag.diagnostics.analysis.accuracy import Reference
from wtdiag.diagnostics.analysis.view import View
from wtdiag.diagnostics.findings.diagnose import diagnose
from wtdiag.diagnostics.findings.headline import headline
from wtdiag.diagnostics.findings.kinds.training import doubling

TEN = CONFIG | {"network": {"shape": [1, 8, 8], "classes": 10, "majority": 0.125}, "settings": {"epochs": 10.0}}
BP = Reference("bp8", "bp", 0.9, "test")


def curve(errors, lr=None, *, noise=0.0, tested=None):
    """Metrics of a run with these shares of errors, by training step."""
    errors = np.asarray(errors, dtype=float)
    wrong = errors + noise * np.random.default_rng(0).normal(size=len(errors))
    table = pd.DataFrame({"step": np.arange(1, len(errors) + 1), "accuracy": 1 - wrong, "loss": 2.3 * wrong})
    table["lr"] = np.full(len(errors), 0.1) if lr is None else lr
    table.loc[len(errors) - 1, "test_accuracy"] = 1 - errors[-1] if tested is None else tested
    return table


def power_law(amount, exponent=0.5):
    return 0.9 * (1 + np.asarray(amount, dtype=float)) ** -exponent


def kinds(*run, **options):
    return [finding.kind for finding in diagnose(healthy(), *run, **options)]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_next_doubling_of_a_power_law_is_foretold_whatever_the_schedule(schedule):
    steps = 400
    lr = np.full(steps, 0.1) if schedule == "constant" else 0.05 * (1 + np.cos(np.pi * np.arange(1, steps + 1) / steps))
    amount = np.cumsum(lr)
    found = doubling(View(healthy(), TEN, curve(power_law(10 * amount), lr, noise=0.01)))
    truth = power_law(10 * amount[-1]) - power_law(20 * amount[-1])
    assert found.gain == pytest.approx(truth, rel=0.15)
    assert abs(found.gain - truth) < 3 * found.error + 0.1 * truth
    assert found.deviations > 3


def test_a_flat_curve_promises_nothing():
    found = doubling(View(healthy(), TEN, curve(np.full(400, 0.4), noise=0.05)))
    assert found.deviations < 3
    assert kinds(TEN, curve(np.full(400, 0.4), noise=0.05)) == ["nothing-wrong"]


def test_a_rising_accuracy_is_found_and_the_command_is_said():
    (found, *_) = diagnose(healthy(), TEN, curve(power_law(0.005 * np.arange(230), 1.0)))
    assert (found.kind, found.layer, found.severity) == ("undertrained", None, "medium")
    assert "Training twice as long (--epochs 20) is predicted to add about" in found.summary
    assert diagnose(healthy(), CONFIG, curve(power_law(0.02 * np.arange(230))))[0].summary.count("(460 steps)") == 1


def test_faults_come_before_the_time_that_was_too_short():
    analysis = plant(healthy(), "fc4", weight_angle=100.0)
    seen = [finding.kind for finding in diagnose(analysis, TEN, curve(power_law(0.02 * np.arange(230))))]
    assert seen[:2] == ["sign-flip", "undertrained"]


def test_more_training_is_not_advised_where_evaluations_have_stopped_rising():
    log = curve(power_law(0.02 * np.arange(230)))
    for step, accuracy in ((50, 0.6), (100, 0.7), (150, 0.65), (200, 0.66), (230, 0.64)):
        log.loc[step - 1, "test_accuracy"] = accuracy
    assert "undertrained" not in kinds(TEN, log)
    log.loc[229, "test_accuracy"] = 0.75
    assert kinds(TEN, log)[0] == "undertrained"


@pytest.mark.parametrize("status", ["running", "diverged"])
def test_a_run_that_goes_on_or_broke_is_not_called_too_short(status):
    assert "undertrained" not in kinds(TEN | {"status": status}, curve(power_law(0.02 * np.arange(230))))


def test_without_accuracies_the_loss_tells():
    log = curve(power_law(0.02 * np.arange(230)))[["step", "loss"]]
    (found, *_) = diagnose(healthy(), CONFIG, log)
    assert (found.kind, found.severity, found.evidence[1].measure) == ("undertrained", "low", "loss")


@pytest.mark.parametrize("errors", [0.8, 0.95])
def test_one_step_is_too_few_to_be_healthy_or_to_have_failed(errors):
    log = curve([errors])
    findings = diagnose(healthy([0, 1]), TEN, log)
    (short,) = (finding for finding in findings if finding.kind == "undertrained")
    assert "nothing-wrong" not in [finding.kind for finding in findings]
    assert short.summary == "Training took 1 step, too few to tell anything about its rule."
    said = headline(findings, View(healthy([0, 1]), TEN, log).accuracy, TEN)
    assert said == "Too few steps to tell; not compared with backprop"


@pytest.mark.parametrize(("tested", "found"), [(0.05, True), (0.125, True), (0.16, True), (0.18, False), (0.9, False)])
def test_at_chance_is_a_finding_and_never_healthy(tested, found):
    log = curve(np.full(230, 1 - tested), tested=tested)
    findings = diagnose(healthy(), TEN, log)
    assert ("learned-nothing" in [each.kind for each in findings]) == found
    said = headline(findings, View(healthy(), TEN, log).accuracy, TEN)
    assert said.startswith("Learned nothing") == found
    assert "Healthy" not in said


@pytest.mark.parametrize("tested", [0.05, 0.9])
def test_a_run_that_goes_on_is_neither_healthy_nor_without_success(tested):
    log, config = curve(np.full(230, 1 - tested), tested=tested), TEN | {"status": "running"}
    said = headline(diagnose(healthy(), config, log), View(healthy(), config, log).accuracy, config)
    assert said == "The run has not ended, and no severe fault was found so far; not compared with backprop"


def test_what_training_batches_learned_is_told_where_the_test_set_shows_nothing():
    """As batch norm shows it, whose running averages lag behind the weights."""
    (found, *_) = diagnose(healthy(), TEN, curve(np.full(230, 0.55), tested=0.13))
    assert found.kind == "learned-nothing"
    assert found.summary == (
        "The network has learned nothing that shows on test examples: its test accuracy is 13.0 % at step 230, where "
        "12.5 % is chance, while its last training batches were right in 45 %."
    )


def test_backprop_that_learned_nothing_is_not_told_to_train_by_backprop():
    log = curve(np.full(230, 0.95), tested=0.05)
    advice = {
        rule: " ".join(diagnose(healthy(), TEN | {"rule": {"name": rule}}, log)[0].advice) for rule in ("bp", "fa")
    }
    assert "Train by backprop" in advice["fa"]
    assert "If backprop learns, train this rule longer" in advice["fa"]
    assert "Train by" not in advice["bp"]
    assert "The cause is not the feedback" in advice["bp"]


def test_what_was_looked_at_is_counted_in_words_that_agree():
    (one,) = diagnose(healthy([0]), CONFIG | {"status": "running"}, pd.DataFrame())
    assert one.summary.endswith("layers and 1 snapshot.")


def test_a_loss_that_did_not_fall_is_a_finding_where_accuracy_is_not_known():
    log = curve(np.linspace(0.5, 0.51, 230))[["step", "loss"]]
    assert kinds(CONFIG, log) == ["learned-nothing"]


@pytest.mark.parametrize(
    ("accuracy", "severity", "says"),
    [
        (0.3, "medium", "It learns, but not as well as it might; 60.0 points below backprop (bp8)"),
        (0.87, "low", "No fault found; 3.0 points below backprop (bp8)"),
        (0.89, None, "Healthy; 1.0 points below backprop (bp8)"),
        (0.9, None, "Healthy; as accurate as backprop (bp8)"),
        (0.95, None, "Healthy; 5.0 points above backprop (bp8)"),
    ],
)
def test_the_gap_to_backprop_is_said_and_found(accuracy, severity, says):
    log = curve(np.full(230, 1 - accuracy))
    findings = diagnose(healthy(), TEN, log, reference=BP)
    behind = [each for each in findings if each.kind == "behind-reference"]
    assert [each.severity for each in behind] == ([] if severity is None else [severity])
    assert headline(findings, View(healthy(), TEN, log, BP).accuracy, TEN) == says


def test_results_are_silent_where_a_fault_explains_them():
    analysis = plant(healthy(), "fc4", weight_angle=100.0)
    log = curve(np.full(230, 0.9))
    assert [each.kind for each in diagnose(analysis, TEN, log, reference=BP)] == ["sign-flip"]
    assert headline(diagnose(analysis, TEN, log, reference=BP), View(analysis, TEN, log, BP).accuracy, TEN) == (
        "Learned nothing; 80.0 points below backprop (bp8)"
    )


def test_accuracies_on_different_sets_are_not_compared():
    held = Reference("bp8", "bp", 0.9, "validation")
    assert "behind-reference" not in kinds(TEN, curve(np.full(230, 0.7)), reference=held)


def test_what_was_foretold_is_judged_by_what_came():
    runs = [
        Judged("conv", "fa", 2, 0, 0.1, (0.05, np.inf), 0.2),
        Judged("conv", "fa", 4, 0, 0.6, (0.0, 0.1), 0.2),
        Judged("conv", "bp", 4, 0, 0.9, None, 0.06),
    ]
    assert [each.kept for each in runs] == [True, False, False]
    shown = judged_table(runs)
    assert "true: 1 of 2 that were found, 0 of 1 others" in shown
    assert "| conv | `fa` | 2 | 0 | 10 | ≥ 5 | 20 | yes |" in shown
