"""The hook of plain loops, its live measures and the loggers."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wtdiag import Hook, analyze, main, open_run, transport_free
from wtdiag.probes.errors import InputError
from wtdiag.trainers.callbacks.live import live_measures
from wtdiag.trainers.callbacks.loggers import LOGGERS, Loggers
from wtdiag.trainers.rules import RULES


@pytest.mark.parametrize("rule", list(RULES))
def test_live_measures_are_those_of_an_analysis(tmp_path, rule):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))
    net = transport_free(net, rule, sample=torch.randn(4, 1, 4, 4))
    F.cross_entropy(net(torch.randn(4, 1, 4, 4)), torch.arange(4) % 3).backward()
    with Hook(net, tmp_path / "run"):
        pass
    measured = live_measures(net)
    names = ["weight_angle", "norm_ratio"]
    analysis = analyze(tmp_path / "run", names).isel(step=0)
    expected = {
        f"{name}/{layer}": analysis[name].sel(layer=layer).item()
        for layer in analysis.layer.values
        for name in names
        if rule != "bp"
        and not analysis.direct.sel(layer=layer)
        and math.isfinite(analysis[name].sel(layer=layer).item())
    }
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-3, abs=0.1), name


def test_what_has_no_angle_is_nan_and_other_code_is_measured_too():
    net = transport_free(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), "fa")
    net[0].feedback.data.zero_()
    net[1].weight.data.fill_(math.nan)
    measured = live_measures(net)
    assert math.isnan(measured["weight_angle/0"])
    assert measured["norm_ratio/0"] == 0
    assert math.isnan(measured["weight_angle/1"])


class Kept:
    """A logger that keeps what it is sent."""

    def __init__(self, folder, name, config):
        self.lines = []
        Kept.last = self

    def log(self, step, numbers):
        if "broken" in numbers:
            raise OSError("no network")
        self.lines.append((step, dict(numbers)))

    def close(self):
        self.lines.append("closed")


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr("wtdiag.trainers.callbacks.loggers.LOGGERS", {"kept": Kept})


def test_a_plain_loop_is_recorded_and_logged(tmp_path, kept):
    net = transport_free(nn.Sequential(nn.Linear(3, 2)), "fa")
    with Hook(net, tmp_path / "run", every=40, log="kept", config={"settings": {"seed": 1}}) as hook:
        for step in range(100):
            hook(loss=torch.tensor(1.0 / (step + 1)))
        hook.log(test_accuracy=0.5)
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [0, 40, 80, 100]
    assert run.config["status"] == "finished"
    assert run.metrics.step.tolist() == [1, *range(10, 101, 10), 100]
    assert run.metrics.loss.dropna().tolist() == pytest.approx([1.0, *(1 / step for step in range(10, 101, 10))])
    lines = Kept.last.lines
    assert lines[0] == (1, {"loss": 1.0})
    assert [step for step, numbers in lines[:-1] if "weight_angle/0" in numbers] == [50, 100]
    assert lines[-2:] == [(100, {"test_accuracy": 0.5}), "closed"]


def test_a_loop_that_fails_is_interrupted_and_keeps_its_steps(tmp_path):
    net = transport_free(nn.Sequential(nn.Linear(3, 2)), "fa")

    def loop():
        with Hook(net, tmp_path / "run", every=2) as hook:
            for step in range(5):
                hook(loss=step)
                if step == 2:
                    raise KeyError

    with pytest.raises(KeyError):
        loop()
    run = open_run(tmp_path / "run")
    assert run.steps.tolist() == [0, 2]
    assert run.config["status"] == "interrupted"


def test_the_last_snapshot_is_taken_where_the_last_metric_cannot_be_logged(tmp_path):
    hook = Hook(transport_free(nn.Sequential(nn.Linear(3, 2)), "fa"), tmp_path / "run")
    hook(loss=1.0)
    hook(loss=[1.0])
    with pytest.raises(InputError, match=r"^loss: expected a number or text to log, got \[1.0\]$"):
        hook.close()
    assert open_run(tmp_path / "run").steps.tolist() == [0, 2]


def test_of_what_a_library_logs_numbers_and_texts_are_kept_under_any_name(tmp_path):
    with Hook(transport_free(nn.Sequential(nn.Linear(3, 2)), "fa"), tmp_path / "run") as hook:
        hook.log_known({"val/acc": torch.tensor(0.5), "step": 7, "self": 1, "table": [1, 2], "1st": "a", "none": None})
    line = open_run(tmp_path / "run").metrics.iloc[0]
    assert line[["step", "val/acc", "1st"]].tolist() == [0, 0.5, "a"]
    assert not {"table", "self"} & set(line.index)


def test_a_logger_that_fails_is_left_out_and_the_loop_goes_on(tmp_path, kept):
    loggers = Loggers(["kept"], tmp_path, {})
    with pytest.warns(UserWarning, match="log: kept failed and is left out from here on"):
        loggers.log(1, {"broken": 1.0})
    loggers.log(2, {"loss": 1.0})
    assert Kept.last.lines == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"log": ["tensorbord"]}, "log: 'tensorbord' is not known; did you mean 'tensorboard'?"),
        ({"every": 0}, "every: expected a whole number of at least 1, got 0"),
        ({"every": 1.5}, "every: expected a whole number of at least 0, got 1.5"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(tmp_path, given, said):
    with pytest.raises(InputError) as caught:
        Hook(transport_free(nn.Sequential(nn.Linear(3, 2)), "fa"), tmp_path / "run", **given)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", list(LOGGERS))
def test_a_logger_that_is_not_installed_is_named(tmp_path, monkeypatch, kind):
    for module in ("torch.utils.tensorboard", "wandb", "mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"log: {kind} needs .*: pip install 'wtdiag\[{kind}\]'"):
        Loggers([kind], tmp_path, {})


# Their libraries warn of their own affairs.
@pytest.mark.filterwarnings("default")
def test_a_training_is_logged_to_all_three_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    words = "train --rule ia --s-guard --feedback-optimizer sgd --feedback-lr 0.1 --depth 3 --width 8 --epochs 3"
    words += " --snapshots 2 --probe-size 16 --out run"
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), *(word for kind in LOGGERS for word in ("--log", kind))])
    assert not ended.value.code
    run = open_run("run")
    logs = run.path / "logs"

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs / "tensorboard"))
    events.Reload()
    wanted = {f"{name}/fc{i}" for name in ("weight_angle", "norm_ratio", "step_size_number") for i in (2, 3)}
    assert wanted | {"loss", "accuracy", "test_accuracy"} <= set(events.Tags()["scalars"])
    losses = {event.step: event.value for event in events.Scalars("loss")}
    expected = run.metrics.set_index("step").loss
    for step, value in losses.items():
        assert value == pytest.approx(expected[step], rel=1e-5)
    last = events.Scalars("weight_angle/fc2")[-1]
    assert last.step == run.steps[-1]
    measured = analyze(run, ["weight_angle"]).weight_angle.sel(layer="fc2").values[-1]
    assert last.value == pytest.approx(measured, abs=0.05)

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{(logs / 'mlflow' / 'mlflow.db').resolve()}")
    (found,) = client.search_runs([client.get_experiment_by_name("wtdiag").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.metrics["loss"] == pytest.approx(losses[max(losses)], rel=1e-5)
    assert found.data.params["rule"] == "ia"
    assert list((logs / "wandb").glob("wandb/offline-run-*/*.wandb"))
    assert np.isfinite(measured)
    assert Path("run/config.json").exists()
