"""The guard of feedback steps: against dense algebra, on a run that breaks without it, and in a resumed run."""

import numpy as np
import pytest
import torch
from torch import nn

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import transport_free
from wtdiag.trainers.loop import fit
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.loop.guard import LARGEST, StepGuard
from wtdiag.trainers.rules import rule

SGD = {"rule": "ia", "feedback_optimizer": "sgd", "width": 16, "depth": 3, "epochs": 1.0, "s_guard": True}


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_it_brings_the_largest_eigenvalue_down_to_its_limit(momentum, nesterov):
    torch.manual_seed(0)
    model = transport_free(nn.Linear(6, 4).double(), rule("ia", null=2.0))
    x = torch.randn(20, 6, dtype=torch.float64)
    guard = StepGuard(model, momentum, nesterov=nesterov)
    for step in range(0, 400, 8):
        model.zero_grad()
        guard.begin(step)
        model(x).sum().backward()
        whole = model.feedback.grad.clone()
        guard.shorten(lr=5.0)
    y = (x @ model.weight.detach().T).numpy()
    curvature = np.linalg.eigvalsh(2.0 * y.T @ y / len(y) + 0.0025 * np.eye(4))[-1]
    number = 5.0 * curvature * (1 + 2 * momentum if nesterov else 1) / (2 * (1 + momentum))
    assert number > 1
    scale = guard.scale.item()
    assert scale == pytest.approx(LARGEST / number, rel=1e-3)
    np.testing.assert_allclose(model.feedback.grad.numpy(), scale * whole.numpy(), rtol=1e-12)
    assert type(model.rule) is type(rule("ia"))


def test_a_run_that_breaks_without_it_goes_on(tmp_path):
    endings = {}
    for on in (False, True):
        *_, progress = Training(Settings(**SGD | {"s_guard": on}, feedback_lr=300.0), tmp_path / str(on))
        endings[on] = progress.status
    assert endings == {False: "diverged", True: "finished"}
    scales = open_run(tmp_path / "True").metrics.feedback_scale
    assert 0 < scales.min() < 0.5
    assert "feedback_scale" not in open_run(tmp_path / "False").metrics


def test_a_resumed_run_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "CHECKPOINT_SECONDS", -1.0)
    settings = Settings(**SGD, feedback_lr=300.0, feedback_momentum=0.5)
    for _ in Training(settings, tmp_path / "whole"):
        pass
    begun = iter(Training(settings, tmp_path / "parts"))
    for _ in range(13):
        next(begun)
    begun.close()
    for _ in Training(settings, tmp_path / "parts", resume=True):
        pass
    whole, parts = (open_run(tmp_path / name).metrics.drop(columns="throughput") for name in ("whole", "parts"))
    assert whole.to_csv() == parts.to_csv()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "fa"}, "s_guard: fa has no learned feedback weights, got True"),
        ({"rule": "dfa"}, "s_guard: dfa has no learned"),
        ({"rule": "ia"}, "s_guard: needs feedback weights .* ia takes adam steps"),
        ({"rule": "kp"}, "s_guard: .* kp takes forward steps"),
        ({"rule": "kp", "feedback_optimizer": "sgd"}, "s_guard: .* kp takes other steps"),
    ],
)
def test_it_is_refused_where_there_is_no_step_size_number(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings, s_guard=True)
