"""Held-out training examples: never trained on, always the same, and the test set stays unseen."""

import pytest
import torch

from wtdiag.probes.errors import InputError
from wtdiag.probes.records.schema import open_run
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.data import hold_out, load
from wtdiag.trainers.loop.fit import Training


def rows(split):
    x, y = split.batch(torch.arange(len(split)))
    return {bytes(image.numpy().tobytes()) for image in x}, torch.bincount(y)


def test_the_two_parts_are_the_training_set_and_share_nothing():
    data = load("digits")
    held = hold_out(data, 0.2)
    train, test = rows(held.train)[0], rows(held.test)[0]
    assert len(held.train) + len(held.test) == len(data.train)
    assert train | test == rows(data.train)[0]
    assert not train & test
    assert not test & rows(data.test)[0]


def test_every_class_keeps_its_share():
    data = load("digits")
    whole, held = rows(data.train)[1], rows(hold_out(data, 0.25).test)[1]
    assert ((held - 0.25 * whole).abs() <= 0.5).all()


def test_the_draw_is_always_the_same():
    first, second = (hold_out(load("digits"), 0.2) for _ in range(2))
    assert torch.equal(first.train.indices, second.train.indices)
    assert first.train.mean == load("digits").train.mean


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1e-6])
def test_a_share_that_leaves_a_part_empty_is_refused(share):
    with pytest.raises(InputError, match="holdout: expected a share between 0 and 1"):
        hold_out(load("digits"), share)


def test_a_run_is_evaluated_on_what_is_held_out(tmp_path):
    settings = Settings(rule="bp", epochs=2, holdout=0.5, depth=2, snapshots=2)
    *_, progress = Training(settings, tmp_path / "run")
    metrics = open_run(tmp_path / "run").metrics
    assert metrics.validation_accuracy.dropna().iloc[-1] == progress.test_accuracy
    assert not {"test_accuracy", "test_loss"} & set(metrics)
    assert progress.tested_on == "validation"


def test_a_pruned_run_is_over(tmp_path):
    settings = Settings(rule="sa", epochs=2, depth=2, snapshots=2)
    training = Training(settings, tmp_path / "run")
    steps = iter(training)
    for _ in range(3):
        next(steps)
    training.prune("S is 3")
    steps.close()
    run = open_run(tmp_path / "run")
    assert run.config["status"] == "pruned"
    assert run.config["pruned"] == {"step": 3, "why": "S is 3"}
    assert 3 in run.steps
    with pytest.raises(InputError, match="is pruned already"):
        Training(settings, tmp_path / "run", resume=True)
