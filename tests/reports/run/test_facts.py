import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.reports.runs import analysis, finding, write_run
from wtdiag.diagnostics.analysis.layout import last_measured
from wtdiag.diagnostics.analysis.reading import meaningful
from wtdiag.diagnostics.findings.headline import worst_severity
from wtdiag.reports.run.facts import facts
from wtdiag.reports.run.findings_section import entries, verdict
from wtdiag.reports.run.single import single
from wtdiag.reports.run.sources import load
from wtdiag.reports.run.summary import glance, outcome, sentences, trend


def test_facts_are_the_datasets_numbers(run):
    source = load(run)
    got, last = facts(source), source.analysis.isel(step=-1)
    angle = last.weight_angle.values[1:]  # the first layer carries no error
    assert got.weight_angle == pytest.approx(angle.mean())
    assert got.weight_angle_median == pytest.approx(np.median(angle))
    assert got.norm_ratio == pytest.approx(np.prod(last.norm_ratio.values[1:]) ** (1 / 5))
    assert (got.step, got.measured, got.test_accuracy, got.test_step) == (2000, 5, 0.965, 2000)
    assert (got.first_layer, got.error_angle) == ("fc1", last.error_angle.values[0])
    assert (got.sender, got.local) == ("fc2", last.error_angle_local.values[1])
    assert (got.inherited, got.total) == (
        last.error_angle_inherited.values[1],
        last.error_angle_total.values[1],
    )


def test_aligned_counts_layers_below_their_own_band(tmp_path):
    data = analysis(4)
    data.weight_angle[-1] = [10.0, 85.0, 88.5, 91.0]  # bands: 90 - 1.79; the first carries no error
    assert facts(load(write_run(tmp_path / "r", data))).aligned == 1


def test_sentences_state_the_numbers(run):
    source = load(run)
    got = facts(source)
    text = " ".join(sentences(got))
    last = source.analysis.isel(step=-1)
    assert "gave a test accuracy of 96.5\N{NO-BREAK SPACE}%." in text
    assert f"{last.weight_angle.values[1:].mean():.1f}° from the forward weights" in text
    assert f"({source.analysis.layer.values[0]}) lies {last.error_angle.values[0]:.1f}°" in text
    for part in ("local", "inherited", "total"):
        assert f"{last[f'error_angle_{part}'].values[1]:.1f}° because of" in text
    assert outcome(got).startswith("ia: test accuracy 96.5\N{NO-BREAK SPACE}%, feedback on average ")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("finished", "The run finished."),
        ("interrupted", "was interrupted."),
        ("running", "had not ended"),
        ("diverged", "diverged at step 340 (loss is nan)."),
        ("?", "not recorded"),
    ],
)
def test_outcome(run, status, says):
    got = dataclasses.replace(facts(load(run)), status=status, diverged_step=340, diverged_what="loss is nan")
    assert says in sentences(got)[0]
    assert ("diverged" in outcome(got)) == (status == "diverged")


def test_diverged_run_is_summed_up_at_its_last_finite_snapshot(tmp_path):
    data = analysis(4, 10)
    for name in data.data_vars:
        if "step" in data[name].dims:
            data[name][7:] = np.nan
    source = load(write_run(tmp_path / "r", data, status="diverged", diverged={"step": 900, "what": "B is inf"}))
    got = facts(source)
    assert got.step == int(data.step[6]) == int(source.analysis.step[last_measured(source.analysis)])
    assert got.weight_angle == pytest.approx(data.weight_angle.values[6, 1:].mean())
    assert f"Snapshots after step {got.step} hold no finite measure" in sentences(got)[0]


def test_nothing_measured_says_so(tmp_path):
    data = analysis(3)[["weight_angle"]] * np.nan
    path = write_run(tmp_path / "r", data, last_step=-1)
    got = facts(load(path))
    assert outcome(got) == "ia: no accuracy and no angle were recorded."
    assert sentences(got) == [
        "The run finished. No test accuracy was recorded.",
        "No layer that carries error has a weight angle.",
    ]


def test_trend_names_the_extreme_layers(run):
    data = load(run).analysis
    now = data.weight_angle.values[-1, 1:]
    text = trend(data, "weight_angle")
    assert text.startswith(f"Weight angle: mean {now.mean():.1f}° at step 2000 (")
    assert f"lowest {now.min():.1f}° in fc{now.argmin() + 2}" in text
    assert f"highest {now.max():.1f}° in fc{now.argmax() + 2}." in text


def test_first_layer_counts_where_the_measure_is_not_about_its_feedback(run):
    data = load(run).analysis
    assert meaningful(data, "weight_angle").tolist() == [False, *[True] * 5]
    assert meaningful(data, "error_angle").all()
    assert meaningful(data, "forward_spectral_norm").all()


def test_sender_is_the_lowest_layer_that_was_measured_to_send(tmp_path):
    data = analysis(4)
    data["carries_error"] = "layer", [1, 1, 1, 1]  # a run that does not know its first layer sends nothing
    data.error_angle_total[:, 1] = np.nan
    got = facts(load(write_run(tmp_path / "r", data)))
    assert got.sender == "fc3"
    assert got.total == data.error_angle_total.values[-1, 2]


def test_glance_shows_what_the_run_has(run, tmp_path):
    source = load(run)
    shown = {number.label: number for number in glance(facts(source)).numbers}
    assert shown["test accuracy"].value == "96.5\N{NO-BREAK SPACE}%"
    assert shown["weight angle"].value == f"{source.analysis.weight_angle.values[-1, 1:].mean():.1f}°"
    largest = source.analysis.step_size_number
    layer = str(largest.layer.values[largest.values.max(axis=0).argmax()])
    assert shown["largest step-size number S"].note == f"in {layer}; unstable above 1"
    assert float(shown["largest step-size number S"].value) == pytest.approx(float(largest.max()), rel=5e-3)
    light = load(write_run(tmp_path / "r", analysis(2)[["forward_norm"]], last_step=-1))
    assert glance(facts(light)).numbers == ()


def test_the_worst_finding_comes_first_and_stands_for_its_kind(tmp_path):
    found = [
        finding("inherited-error", "fc2", "medium", "Fc2 inherits its error", first_step=7, last_step=7, evidence=()),
        *(finding("step-too-large", f"fc{i}", summary=f"S of fc{i} is 3.2.") for i in (3, 4, 5)),
    ]
    source = load(write_run(tmp_path / "r", analysis(), findings=found))
    first, second = single(source).sections[0].blocks[1].entries
    assert (first.severity, first.kind, first.where) == ("high", "Step too large", "fc3, steps 40 to 200")
    assert first.summary == "S of fc3 is 3.2."
    assert first.figure in {"layers-maps", "stability"}
    details = dict(first.details)
    assert details["Also"] == "fc4, steps 40 to 200; fc5, steps 40 to 200"
    label = source.analysis.step_size_number.attrs["long_name"]
    assert details["Evidence"] == f"{label}: 3.20 > 1.00 at step 40"
    assert details["Confidence"].startswith("95\N{NO-BREAK SPACE}%")
    assert (second.where, second.figure, dict(second.details).get("Evidence")) == ("fc2, step 7", "", None)


def test_many_findings_of_a_kind_are_counted_not_listed():
    entry = entries([finding(layer=f"fc{i}") for i in range(40)], (), analysis(), Path("runs/ia")).entries[0]
    assert dict(entry.details)["Also"].endswith("; and 27 more")


@pytest.mark.parametrize(
    ("severities", "worst"), [(["none"], "none"), (["low", "high", "medium"], "high"), ([], ""), (None, "")]
)
def test_health_is_the_worst_severity(tmp_path, severities, worst):
    found = None if severities is None else [finding(severity=severity) for severity in severities]
    source = load(write_run(tmp_path / "r", analysis(2)[["weight_angle"]], findings=found))
    assert worst_severity(source.findings) == worst
    report = single(source)
    assert report.health == worst
    assert bool(report.headline) == bool(worst)
    assert report.verdict.startswith("S of fc3 is 3.2. ia:" if worst == "high" else ("S of", "ia:", "Not diagnosed:"))
    assert report.verdict.startswith("Not diagnosed:") == (not worst)


def test_a_run_that_was_not_diagnosed_says_so(light):
    report = single(load(light))
    assert report.verdict.startswith("Not diagnosed: the run has no findings; `wtdiag analyze` writes them")
    assert report.verdict.endswith(outcome(facts(load(light))))


def test_a_verdict_says_when_its_angles_are_of_another_step_than_its_accuracy(tmp_path):
    measured = analysis(3)[["weight_angle"]]
    late = outcome(facts(load(write_run(tmp_path / "late", measured))))
    assert "at step" not in late
    early = facts(load(write_run(tmp_path / "early", measured.isel(step=[0]))))
    said = outcome(early).replace("\N{NO-BREAK SPACE}", " ")
    assert "test accuracy 96.5 % at step 2000, at step 0 feedback on average" in said
    assert [number.note for number in glance(early).numbers][1].startswith("at step 0; mean of 2 layers")


def test_a_healthy_run_says_so_and_what_it_reached(tmp_path):
    found = [finding("nothing-wrong", None, "none", "Nothing wrong was found", evidence=())]
    source = load(write_run(tmp_path / "r", analysis(2)[["weight_angle"]], findings=found))
    assert single(source).headline == "No fault found; not compared with backprop"
    assert verdict(source, facts(source)) == outcome(facts(source))


def test_advice_is_shown_with_the_command_that_follows_it():
    advised = finding(advice=("Lower the rate.", "Clip.", "Check."), changes={"lr": 0.005})
    entry = entries([advised], (), analysis(), Path("runs/ia")).entries[0]
    assert [text for label, text in entry.details if label in ("Try", "Or")] == ["Lower the rate.", "Clip. Or: Check."]
    assert entry.command == "wtdiag train --config runs/ia/config.json --lr 0.005 --out runs/ia-2"
    assert entries([finding()], (), analysis(), Path("runs/ia")).entries[0].command == ""
