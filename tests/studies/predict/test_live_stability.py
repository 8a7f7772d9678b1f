"""The stability of a live training: as the analysis of its snapshots has it, and without a trace in the training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wtdiag.diagnostics.analysis.analyze import analyze
from wtdiag.studies.predict.live_stability import Stability, stability
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.open_run import open_run, signals_of
from wtdiag.trainers.observe.tracer import error_signals

SMALL: dict[str, Any] = {"width": 16, "depth": 3, "epochs": 0.5, "snapshots": 2, "snapshot_every": 4}
SGD: dict[str, Any] = {"feedback_optimizer": "sgd", "feedback_lr": 0.7}

RUNS: dict[str, dict[str, Any]] = {
    "ia": {"rule": "ia", **SGD},
    "momentum": {"rule": "ia", **SGD, "feedback_momentum": 0.9},
    "nesterov": {"rule": "ia", **SGD, "feedback_momentum": 0.9, "nesterov": True},
    "adam": {"rule": "ia"},
    "aa": {"rule": "aa", **SGD},
    "scheduled": {"rule": "ia", **SGD, "coefficients": {"null": "linear:0.01:0.2"}},
    "wm": {"rule": "wm", "delay": 0.2},
    "kp": {"rule": "kp", "weight_decay": 0.01},
    "kp-adam": {"rule": "kp", "optimizer": "adam"},
    "wm-reg-adamw": {"rule": "wm-reg", "feedback_optimizer": "adamw"},
    "conv": {"rule": "ia", "model": "conv", **SGD},
    "bp": {"rule": "bp"},
    "fa": {"rule": "fa"},
}


@pytest.mark.filterwarnings("ignore:kp.* moves W and B differently")  # as Adam does
@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_is_what_the_analysis_finds_at_each_snapshot(settings: dict[str, Any], tmp_path: Path) -> None:
    training = Training(Settings(**SMALL | settings), tmp_path / "run")
    live = {0: stability(training)}
    live |= {progress.step: stability(training) for progress in training}
    run = open_run(tmp_path / "run")
    analysis = analyze(run, ["step_size_number", "predicted_gain"], signals_of(run))
    assert len(analysis.step) >= 4
    for step in analysis.step.values:
        now = analysis.sel(step=step)
        gains = now.predicted_gain.values[now.carries_error.values]
        assert live[int(step)].step_size_number == pytest.approx(
            np.fmax.reduce(now.step_size_number.values), rel=1e-6, nan_ok=True
        )
        assert live[int(step)].log_gain == pytest.approx(np.log(np.abs(gains)).sum(), rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("name", ["ia", "adam", "scheduled", "bp", "fa"])
def test_is_a_number_where_there_is_one(name: str, tmp_path: Path) -> None:
    found = stability(Training(Settings(**SMALL | RUNS[name]), tmp_path / "run"))
    assert math.isnan(found.step_size_number) == (name in ("adam", "bp", "fa"))
    assert math.isnan(found.log_gain) == (name in ("bp", "fa"))  # Adam comes to rest where SGD does


def test_is_what_explicit_matrices_give(tmp_path: Path) -> None:
    whole = {"batch_size": 2000}  # of which each step sees all, so that H does not fluctuate
    settings = Settings(**SMALL | RUNS["ia"] | whole, precision="float64", batch_norm=False)
    training = Training(settings, tmp_path / "run")
    x, target = training.probe_batch()
    signals = error_signals(training.model, x, target)
    numbers, gains = [], []
    for name, layer in synapses(training.model):
        w, inputs = layer.weight.detach().numpy(), signals[name]["inputs"]
        sigma = inputs.T @ inputs / len(inputs)
        h = 0.01 * w @ sigma @ w.T + 0.0025 * np.eye(len(w))
        rest = np.linalg.solve(h, 0.04 * w @ sigma)
        numbers.append(0.7 * np.linalg.eigvalsh(h)[-1] / 2)
        gains.append((rest * w).sum() / (w * w).sum())
    found = stability(training)
    assert found.step_size_number == pytest.approx(max(numbers), rel=2e-3)
    assert found.log_gain == pytest.approx(np.log(gains[1:]).sum(), abs=1e-4)  # the first layer carries no error


@pytest.mark.parametrize("name", ["momentum", "scheduled", "wm", "conv"])
def test_leaves_the_training_as_it_was(name: str, tmp_path: Path) -> None:
    settings = Settings(**SMALL | RUNS[name])
    seen, left = Training(settings, tmp_path / "seen"), Training(settings, tmp_path / "left")
    for one, other in zip(seen, left, strict=True):
        outside, modes = torch.get_rng_state(), [module.training for module in seen.model.modules()]
        stability(seen)
        assert torch.equal(torch.get_rng_state(), outside)
        assert [module.training for module in seen.model.modules()] == modes
        assert (one.loss, one.accuracy) == (other.loss, other.accuracy)
        for a, b in zip(seen.model.parameters(), left.model.parameters(), strict=True):
            if a.grad is None or b.grad is None:
                assert a.grad is b.grad
            else:
                assert torch.equal(a.grad, b.grad)
    assert seen.progress.step == seen.total > 0
    states = (seen.model.state_dict(), left.model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert seen.progress.test_accuracy == left.progress.test_accuracy


def test_is_the_same_in_evaluation_mode_which_stays_on(tmp_path: Path) -> None:
    training = Training(Settings(**SMALL | RUNS["ia"]), tmp_path / "run")
    before = stability(training)
    training.model.eval()
    assert stability(training) == before
    assert not any(module.training for module in training.model.modules())


def test_feedback_that_has_overflowed_has_no_gain(tmp_path: Path) -> None:
    training = Training(Settings(**SMALL | RUNS["ia"]), tmp_path / "run")
    before = stability(training)
    with torch.no_grad():
        dict(synapses(training.model))["fc2"].feedback.fill_(math.inf)
    after = stability(training)
    assert math.isnan(after.log_gain)
    assert after.step_size_number == before.step_size_number  # fc1's is the largest


def test_a_run_without_steps_has_a_stability(tmp_path: Path) -> None:
    training = Training(Settings(**SMALL | RUNS["ia"] | {"epochs": 0}), tmp_path / "run")
    found = stability(training)
    assert isinstance(found, Stability)
    assert found.step_size_number > 0
