import dataclasses

import numpy as np
import pytest
from conftest import analysis, write_run

from reports.facts import facts, last_measured, meaningful
from reports.sources import load
from reports.summary import sentences, trend, verdict


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
    assert "96.5\N{NO-BREAK SPACE}% test accuracy" in text
    assert f"{last.weight_angle.values[1:].mean():.1f}° from the forward weights" in text
    assert f"({source.analysis.layer.values[0]}) lies {last.error_angle.values[0]:.1f}°" in text
    for part in ("local", "inherited", "total"):
        assert f"{last[f'error_angle_{part}'].values[1]:.1f}° through" in text
    assert verdict(got).startswith("ia: test accuracy 96.5\N{NO-BREAK SPACE}%, feedback on average ")


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
    assert ("diverged" in verdict(got)) == (status == "diverged")


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
    assert verdict(got) == "ia: no accuracy and no angle were recorded."
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
