"""Whole runs: what is recorded, when, and how they end."""

import itertools
import math
import multiprocessing
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import load
from wtdiag.trainers.loop import step as step_module
from wtdiag.trainers.loop.fit import INTERVAL, Training
from wtdiag.trainers.loop.progress import follow
from wtdiag.trainers.observe.open_run import open_run as trained
from wtdiag.trainers.record.snapshot_plan import SnapshotPlan
from wtdiag.trainers.record.staging import snapshot_bytes
from wtdiag.trainers.rules import RULES


def train(out, **settings):
    training = Training(Settings(**settings), out)
    for _ in training:
        pass
    return open_run(out), training.progress


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "sum"])
def test_every_rule_learns_with_its_defaults(rule, tmp_path):
    run, progress = train(tmp_path / "run", rule=rule, epochs=6, depth=3, snapshots=2)
    assert progress.status == run.config["status"] == "finished"
    assert progress.test_accuracy > 0.85
    metrics = run.metrics
    assert metrics.step.tolist() == list(range(1, 6 * 23 + 1))
    assert metrics.test_accuracy.notna().sum() == 6
    assert metrics.feedback_norm.notna().all() == RULES[rule].learned
    assert (metrics.throughput > 0).all()


def test_logged_of_the_test_set_are_its_means_in_evaluation_mode(tmp_path):
    run, progress = train(tmp_path / "run", rule="fa", epochs=1, width=8, batch_norm=True, snapshots=2)
    test = load("digits").test
    x, y = test.batch(torch.arange(len(test)))
    assert len(y) % 256
    with torch.no_grad():
        output = trained(run.path).model(progress.step).eval()(x)
    last = run.metrics.iloc[-1]
    assert last.test_loss == pytest.approx(F.cross_entropy(output, y).item(), rel=1e-5)
    assert last.test_accuracy == progress.test_accuracy == (output.argmax(1) == y).double().mean().item()


def test_snapshots_by_count_and_interval(tmp_path):
    run, _ = train(tmp_path / "run", rule="fa", epochs=2, width=8, snapshots=5, snapshot_every=20)
    steps = run.steps.tolist()
    assert steps[0] == 0
    assert steps[-1] == 46
    assert {20, 40} <= set(steps)
    assert len(steps) == 7


def test_snapshots_stay_under_the_limit(tmp_path):
    run, _ = train(tmp_path / "run", rule="fa", epochs=3, width=8, snapshots=50, max_gb=400e-6)
    assert sum(path.stat().st_size for path in (run.path / "snapshots").iterdir()) < 400e3
    assert 2 <= len(run.steps) < 50
    assert run.steps[-1] == 69


def test_trouble_is_recorded_from_before_to_after(tmp_path):
    # For one step, number 35 of the run, B is pulled to 60 W.
    run, _ = train(
        tmp_path / "run", rule="sa", epochs=3, snapshots=2, coefficients={"self": "window:60:1.5:1.54", "decay": 0.0}
    )
    events = run.metrics[run.metrics["event"].notna()] if "event" in run.metrics else []
    assert len(events)
    step = int(events.step.iloc[0])
    assert "jumped" in events.event.iloc[0] or "became" in events.event.iloc[0]
    before = [s for s in run.steps if 0 < s < step]
    assert before
    assert step - max(before) <= INTERVAL
    noticed = -(-step // INTERVAL) * INTERVAL  # when the metrics are read
    assert {noticed, noticed + 1, noticed + 2, noticed + 4, noticed + 8} <= set(run.steps.tolist())


def test_divergence_is_recorded_up_to_the_last_finite_step(tmp_path):
    run, progress = train(tmp_path / "run", rule="wm-reg", depth=8, epochs=20, coefficients={"amp": 1.0}, snapshots=5)
    assert progress.status == run.config["status"] == "diverged"
    step, what = run.config["diverged"]["step"], run.config["diverged"]["what"]
    assert run.metrics.step.max() == step - 1
    steps = run.metrics[run.metrics.event.isna()]  # a line of its own tells of the jump
    assert np.isfinite(steps.loss).all()
    assert what == "loss" or what.startswith(("norm of the weight of fc", "norm of the feedback of fc"))
    last = run.steps[-1]
    assert step - 11 <= last < step
    for node in run.snapshot(last).children.values():
        assert np.isfinite(node.feedback).all()


@pytest.mark.parametrize("fit", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("amp", [1.0, "window:1e30:1:2"])  # at once, and long after step 0
def test_a_diverged_run_stays_under_the_limit(fit, amp, tmp_path):
    settings = {"rule": "wm-reg", "depth": 8, "epochs": 20, "coefficients": {"amp": amp}}
    size = snapshot_bytes(Training(Settings(**settings), tmp_path / "unused").model)
    run, progress = train(tmp_path / "run", **settings, max_gb=(fit + 0.01) * size / 1e9)
    assert progress.status == "diverged"
    assert 1 <= len(run.steps) <= fit


def test_step_0_is_recorded_only_as_planned(tmp_path):
    settings = {"rule": "fa", "epochs": 0.2, "width": 8}
    size = snapshot_bytes(Training(Settings(**settings), tmp_path / "unused").model)
    run, progress = train(tmp_path / "run", **settings, max_gb=1.5 * size / 1e9)
    assert run.steps.tolist() == [progress.total] == list(SnapshotPlan(progress.total, 2, None, 1.0, 10**9).steps)


def test_words_are_no_schedules(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(step_module, "set_rule", lambda *_: calls.append(1))
    train(tmp_path / "words", rule="wm-reg", epochs=0.2, coefficients={"inputs": "noise"})
    assert not calls
    _, progress = train(tmp_path / "schedule", rule="sa", epochs=0.2, coefficients={"self": "linear:0.1:0.2"})
    assert len(calls) == progress.total


def test_making_a_training_writes_nothing(tmp_path):
    Training(Settings(rule="fa", epochs=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_label_smoothing_and_precision_reach_the_loss(tmp_path):
    plain, _ = train(tmp_path / "plain", rule="bp", epochs=0.05, snapshots=2, lr=0.0)
    smooth, _ = train(tmp_path / "smooth", rule="bp", epochs=0.05, snapshots=2, lr=0.0, label_smoothing=0.5)
    double, _ = train(tmp_path / "double", rule="bp", epochs=0.05, snapshots=2, lr=0.0, precision="float64")
    assert plain.metrics.loss[0] != smooth.metrics.loss[0]
    assert plain.metrics.loss[0] == pytest.approx(double.metrics.loss[0], rel=1e-5)
    assert double.snapshot(0)["fc1"].forward.dtype == np.float64


def test_seeds_share_initial_weights_across_rules(tmp_path):
    fa, _ = train(tmp_path / "fa", rule="fa", epochs=0.0, snapshots=2)
    kp, _ = train(tmp_path / "kp", rule="kp", epochs=0.0, snapshots=2)
    assert fa.snapshot(0)["fc2"].forward.identical(kp.snapshot(0)["fc2"].forward)
    other, _ = train(tmp_path / "other", rule="fa", epochs=0.0, snapshots=2, seed=1)
    assert not fa.snapshot(0)["fc2"].forward.equals(other.snapshot(0)["fc2"].forward)


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(tmp_path / "run", rule="brsf", epochs=0.3, snapshots=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_abandoned_run_is_interrupted_and_goes_on(tmp_path):
    settings = Settings(rule="fa", epochs=1)
    steps = iter(Training(settings, tmp_path / "run"))
    next(steps)
    steps.close()
    assert open_run(tmp_path / "run").config["status"] == "interrupted"
    for progress in Training(settings, tmp_path / "run", resume=True):
        assert math.isfinite(progress.loss)
    assert open_run(tmp_path / "run").config["status"] == "finished"


def test_a_run_whose_reading_process_is_killed_is_interrupted_with_one_line(tmp_path):
    for part, number in itertools.product(("train", "val"), range(8)):
        folder = tmp_path / part / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (30 * number, 0, 0)).save(folder / f"{number}.png")
    settings = Settings(
        data="imagefolder", data_dir=str(tmp_path), image_size=8, batch_size=4, epochs=1e4, depth=2, width=4, workers=1
    )
    training = Training(settings, tmp_path / "run")
    before = multiprocessing.active_children()

    def kill():
        while not (children := [child for child in multiprocessing.active_children() if child not in before]):
            time.sleep(0.05)
        children[0].kill()

    threading.Thread(target=kill).start()
    with pytest.raises(InputError, match=r"^workers: a process that reads images was lost .*; --workers 0") as caught:
        follow({"run": training}, Console(quiet=True))
    assert "\n" not in str(caught.value)
    assert open_run(tmp_path / "run").config["status"] == "interrupted"


def test_a_run_cannot_go_on_with_another_network(tmp_path):
    steps = iter(Training(Settings(rule="fa", epochs=1), tmp_path / "run"))
    next(steps)
    steps.close()
    with pytest.raises(InputError, match=r"checkpoint\.pt: does not fit the run's settings"):
        Training(Settings(rule="fa", epochs=1, width=7), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": "ten"}, "epochs: expected a number, got 'ten'"),
        ({"epochs": math.nan}, "epochs: expected a number ≥ 0, got nan"),
        ({"momentum": 1.0}, "momentum: expected a number below 1"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov: needs sgd with momentum"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"rule": "kp", "coefficients": {"amp": 1}}, "coefficient of kp: 'amp'"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov: needs sgd"),
        ({"rule": "kp", "feedback_lr": 1.0}, "feedback_lr: kp takes the forward weights' steps"),
        (
            {"rule": "ia", "feedback_momentum": 0.5},
            "feedback_momentum: only sgd has it",
        ),
        ({"rule": "fa", "update_noise": 1.0, "noise_on": "feedback"}, "noise_on: fa has no learned"),
        ({"rule": "fa", "feedback_lr": 0.1}, "fa has no learned feedback weights"),
        ({"rule": "sa", "coefficients": {"self": "cyclic:1:0:0"}}, "expected cyclic:HIGH:LOW:EPOCHS"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)
