"""Training on noise before the task, for rules with fixed feedback."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wtdiag.probes.errors import InputError
from wtdiag.trainers import data
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.layers.convert import synapses
from wtdiag.trainers.loop.fit import Training
from wtdiag.trainers.observe.open_run import open_run

NOISY = Settings(rule="fa", depth=3, width=8, epochs=2, pretrain_noise=1, snapshots=3, warmup=0.2)
EPOCH = 23


def run(training, steps=None):
    for _ in itertools.islice(training, steps):
        pass
    training.close()
    return training


def cosine(model):
    return np.mean(
        [F.cosine_similarity(s.weight.flatten(), s.feedback.flatten(), dim=0).item() for _, s in synapses(model)]
    )


def test_a_run_first_learns_noise_and_then_the_data_in_their_usual_order(tmp_path):
    noisy = Training(NOISY, tmp_path / "noisy")
    plain = Training(dataclasses.replace(NOISY, pretrain_noise=0), tmp_path / "plain")
    assert (noisy.pretraining, noisy.total, plain.total) == (EPOCH, 3 * EPOCH, 2 * EPOCH)
    batches = list(noisy._batches())
    assert len(batches) == 3 * EPOCH
    for (x, y, _), (x_, y_, _) in zip(batches[EPOCH:], plain._batches(), strict=True):
        assert torch.equal(x, x_)
        assert torch.equal(y, y_)
    x = torch.cat([x for x, _, _ in batches[:EPOCH]])
    y = torch.cat([y for _, y, _ in batches[:EPOCH]])
    assert abs(x.mean()) < 5 / x.numel() ** 0.5
    assert abs(x.square().mean() - 1) < 5 * (2 / x.numel()) ** 0.5
    assert set(y.tolist()) == set(range(10))
    assert len(torch.unique(x[:, 0, 0, 0])) == len(x)
    # The schedule and the warm-up are those of the task, and before it the rate is whole.
    rates = [noisy.learner.rates(step)[0] for step in range(3 * EPOCH)]
    assert set(rates[:EPOCH]) == {noisy.learner.lr}
    assert rates[EPOCH:] == [plain.learner.rates(step)[0] for step in range(2 * EPOCH)]


@pytest.mark.parametrize("stop", [7, EPOCH, EPOCH + 9])
def test_a_stopped_run_goes_on_bitwise_in_either_phase(stop, tmp_path, monkeypatch):
    monkeypatch.setattr("wtdiag.trainers.loop.fit.CHECKPOINT_SECONDS", 0.0)
    settings = dataclasses.replace(NOISY, epochs=1)
    whole = run(Training(settings, tmp_path / "whole"))
    run(Training(settings, tmp_path / "half"), stop)
    again = run(Training(settings, tmp_path / "half", resume=True))
    for (key, value), other in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    metrics = open_run(tmp_path / "half").metrics
    assert metrics.step.tolist() == list(range(1, 2 * EPOCH + 1))
    for name in ("loss", "accuracy"):  # those on noise are no part of those on the data
        assert metrics[f"noise_{name}"].notna().tolist() == [True] * EPOCH + [False] * EPOCH
        assert metrics[name].notna().tolist() == [False] * EPOCH + [True] * EPOCH


def test_noise_aligns_weights_with_feedback_and_labels_cannot_be_guessed(tmp_path):
    training = Training(dataclasses.replace(NOISY, epochs=0, pretrain_noise=10, width=32), tmp_path / "run")
    before = cosine(training.model)
    run(training)
    assert cosine(training.model) > before + 0.15
    assert training.progress.test_accuracy < 0.3
    x, _ = data.noise_batch(training.dataset, 4, seed=0, number=0)
    assert not torch.equal(x, data.noise_batch(training.dataset, 4, seed=0, number=1)[0])
    assert not torch.equal(x, data.noise_batch(training.dataset, 4, seed=1, number=0)[0])


@pytest.mark.parametrize("rule", ["bp", "kp", "usf", "ia", "pfa", "dkp"])
def test_rules_without_fixed_feedback_are_refused(rule):
    with pytest.raises(InputError, match=rf"^pretrain_noise: {rule} has no fixed feedback weights, got 1$"):
        Settings(rule=rule, pretrain_noise=1)
