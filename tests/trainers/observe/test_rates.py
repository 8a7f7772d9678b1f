"""What a run says of its rates, as its laws and its analysis get to know it."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from wtdiag.diagnostics.analysis.analyze import analyze
from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import write_json
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses, transport_free
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.open_run import attribution_of, open_run, signals_of
from wtdiag.trainers.record.recorder import Recorder
from wtdiag.trainers.rules import RULES
from wtdiag.trainers.rules import rule as build_rule


def trained(path, **settings):
    """Train for 46 steps, 23 of them an epoch, and return the run."""
    every = {"epochs": 2, "depth": 2, "width": 8, "snapshot_every": 5, "warmup": 0.2}
    for _ in Training(Settings(**every | settings), path):
        pass
    return open_run(path)


def facts(law):
    return {f.name: getattr(law, f.name) for f in dataclasses.fields(law) if f.name not in ("uses", "examples")}


PLAIN = {
    "lr": 1.0, "optimizer": "sgd", "momentum": 0.0, "nesterov": False, "interval": 1, "weight_decay": 0.0,
    "update_noise": 0.0, "batch_size": 64, "epoch": 23,
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        (
            {"feedback_lr": 0.5, "feedback_momentum": 0.8, "nesterov": True},
            {"lr": 0.5, "momentum": 0.8, "nesterov": True},
        ),
        ({"feedback_optimizer": "adam", "batch_size": 60}, {"optimizer": "adam", "batch_size": 60, "epoch": 24}),
        ({"update_noise": 0.1}, {"update_noise": 0.1}),
        ({"update_noise": 0.1, "noise_on": "forward"}, {}),
        ({"relative_noise": 0.1, "noise_on": "forward"}, {}),
        ({"alternate": 3}, {"interval": 4}),
        ({"weight_decay": 0.01}, {}),
    ],
)  # fmt: skip
def test_the_law_knows_how_its_feedback_was_optimised(settings, expected, tmp_path):
    run = trained(tmp_path / "run", rule="sa", **settings)
    for step in (5, int(run.steps[-1])):
        law = signals_of(run)(step)["fc1"]["law"]
        assert facts(law) == PLAIN | expected


def test_noise_relative_to_updates_has_no_size_that_the_settings_tell(tmp_path):
    law = signals_of(trained(tmp_path / "run", rule="sa", relative_noise=0.1))(5)["fc1"]["law"]
    assert math.isnan(law.update_noise)


def test_rates_are_those_of_the_step_that_leaves_the_snapshot(tmp_path):
    settings = {"rule": "kp", "nesterov": True, "weight_decay": 0.02, "update_noise": 0.1}
    run = trained(tmp_path / "run", **settings)
    signals = signals_of(run)
    rates = {row["step"]: row["lr"] for row in map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())}
    assert len(set(rates.values())) > 20
    for step in (0, 5, 20, 46):
        lr = rates[min(step + 1, 46)]
        found = signals(step)["fc2"]
        assert found["forward_lr"] == pytest.approx(lr / (1 - 0.9), rel=1e-12)
        noise = {"update_noise": 0.1 * lr * math.sqrt(2)}  # that of W and that of B
        expected = PLAIN | {"lr": lr, "momentum": 0.9, "nesterov": True, "weight_decay": 0.02} | noise
        assert facts(found["law"]) == pytest.approx(expected)


def test_forward_weights_wait_in_the_delay(tmp_path):
    run = trained(tmp_path / "run", rule="sa", delay=1.0, alternate=1)
    signals = signals_of(run)
    assert [signals(step)["fc1"]["forward_lr"] == 0 for step in (0, 20, 25)] == [True, True, False]
    assert [signals(step)["fc1"]["law"].interval for step in (0, 20, 25)] == [1, 1, 2]


@pytest.mark.filterwarnings("ignore:kp.* moves W and B differently")  # as Adam does
def test_adam_has_no_forward_rate(tmp_path):
    run = trained(tmp_path / "run", rule="kp", optimizer="adamw", weight_decay=0.1)
    found = signals_of(run)(5)["fc1"]
    assert math.isnan(found["forward_lr"])
    assert (found["law"].optimizer, found["law"].momentum, found["law"].weight_decay) == ("adamw", 0.0, 0.0)
    costs = attribution_of(run)(5)
    assert "fc1" in costs
    assert all(math.isfinite(value) for cost in costs.values() for value in cost)


def test_the_law_has_the_coefficients_of_its_step(tmp_path):
    run = trained(tmp_path / "run", rule="sa", coefficients={"self": "linear:0.4:0", "decay": "window:0.3:1:2"})
    signals = signals_of(run)
    for step in (0, 5, 25, 46):
        snapshot = run.snapshot(step)["fc1"]
        w, b = snapshot.forward.values, snapshot.feedback.values
        rule = build_rule("sa", self=0.4 * (1 - step / 46), decay=0.3 if 23 <= step < 46 else 0.0)
        expected = rule.decay * b - rule.self * w
        np.testing.assert_allclose(signals(step)["fc1"]["law"].gradient(b), expected, rtol=1e-5, atol=1e-6)


def own_run(path, rule):
    net = transport_free(nn.Linear(4, 3), rule)
    with Recorder(net, path, probe_batch=(torch.randn(10, 4), torch.arange(10) % 3)) as recorder:
        recorder.snapshot(0)
    return net


def own_law(path, rule="ia", settings=None, lines=()):
    """The law and forward rate of a run of one's own with these settings and lines of metrics."""
    net = own_run(path, rule)
    write_json(path / "config.json", {"settings": settings})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = signals_of(open_run(path), net)(0)["model"]
    return facts(found["law"]), found["forward_lr"]


LINES = [{"step": 0, "lr": 0.7, "feedback_lr": 0.3}, {"step": 4, "lr": 0.2, "feedback_lr": 0.1}, {"step": 9}]


@pytest.mark.parametrize(
    ("rule", "settings", "expected", "forward"),
    [
        ("ia", None, {"lr": 0.1}, 0.2),
        ("ia", {"feedback_optimizer": "adam", "momentum": 0.5, "batch_size": 20},
         {"lr": 0.1, "optimizer": "adam", "batch_size": 20}, 0.4),
        ("ia", {"feedback_momentum": 0.6, "update_noise": 0.2},
         {"lr": 0.1, "momentum": 0.6, "update_noise": 0.02}, 0.2),
        ("kp", {"momentum": 0.5, "weight_decay": 0.3}, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.3}, 0.4),
        ("kp", {"optimizer": "adam"}, {"lr": 0.1, "optimizer": "adam"}, math.nan),
        ("ia", {"momentum": "x", "feedback_momentum": 7, "alternate": -1, "batch_size": 2.5, "no": [1]},
         {"lr": 0.1}, 0.2),
    ],
)  # fmt: skip
def test_a_run_of_ones_own_says_what_it_likes(rule, settings, expected, forward, tmp_path):
    law, lr = own_law(tmp_path / "run", rule, settings, LINES)
    assert law == pytest.approx(PLAIN | {"batch_size": 10, "epoch": None} | expected)
    assert lr == pytest.approx(forward, nan_ok=True)


def test_feedback_under_the_forward_optimiser_has_its_rate(tmp_path):
    law, _ = own_law(tmp_path / "run", "kp", None, [{"step": 1, "lr": 0.2}])
    assert law["lr"] == 0.2


@pytest.mark.parametrize(
    "lines",
    [
        [], [{}], [{"loss": 1.0}], [{"step": 1}], [{"step": 1, "lr": None, "feedback_lr": None}],
        [{"step": "x", "lr": 1.0, "feedback_lr": 1.0}], [{"step": 1, "lr": "0.1", "feedback_lr": [0.1]}],
        [{"step": 1, "lr": -1, "feedback_lr": {"a": 1}}], [{"step": 1, "lr": math.nan, "feedback_lr": math.inf}],
        [{"step": math.inf, "lr": 1, "feedback_lr": 1}], [{"step": -1, "lr": 1, "feedback_lr": 1}],
    ],
)  # fmt: skip
def test_rates_that_nobody_logged_are_not_known(lines, tmp_path):
    law, forward = own_law(tmp_path / "run", lines=lines)
    assert math.isnan(law["lr"])
    assert math.isnan(forward)


@pytest.mark.parametrize("name", ["step", "lr"])
def test_metrics_with_a_huge_whole_number_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"line 1 is not JSON .*401 digits"):
        own_law(tmp_path / "run", lines=[{"step": 1, "lr": 1, name: 10**400}])


def test_a_run_without_metrics_has_signals(tmp_path):
    net = own_run(tmp_path / "run", "fa")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert math.isnan(signals_of(open_run(tmp_path / "run"), net)(0)["model"]["forward_lr"])


# The step of W, with all that moves it


class Shared(nn.Module):
    """Two layers with the same weights, before a head of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.twin, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.twin.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.twin(torch.tanh(self.first(x)))))


@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("name", sorted(RULES.keys() - {"brsf"}))  # which draws B anew in each step
def test_the_relative_update_is_the_step_that_the_optimiser_takes(name, weight_decay, tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(10, 6, dtype=torch.float64), torch.arange(10) % 4
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    net = transport_free(Shared().double() if name == "kp" else net, name, sample=x)
    with Recorder(net, tmp_path / "run", probe_batch=(x, y)) as recorder:
        recorder.snapshot(0)
    write_json(tmp_path / "run" / "config.json", {"settings": {"weight_decay": weight_decay}})
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps({"step": 1, "lr": 0.3, "feedback_lr": 0.3}) + "\n")
    run = open_run(tmp_path / "run")
    measured = analyze(run, ["relative_update"], signals_of(run, net)).relative_update.isel(step=0)
    before = {layer: each.weight.detach().clone() for layer, each in synapses(net)}
    optimizer = torch.optim.SGD([each.weight for _, each in synapses(net)][-2:], lr=0.3, weight_decay=weight_decay)
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    for layer, each in synapses(net):
        moved = (each.weight.detach() - before[layer]).norm() / before[layer].norm()
        assert float(measured.sel(layer=layer)) == pytest.approx(float(moved), rel=1e-6), layer
