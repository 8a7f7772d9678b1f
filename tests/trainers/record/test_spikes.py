import math

import pytest
import torch

from wtdiag.trainers.record.spikes import Trouble


def noisy(steps, level=1.0):
    noise = torch.randn(steps, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [level + 0.1 * value for value in noise.tolist()]


def test_noise_and_smooth_descent_are_no_trouble():
    trouble = Trouble(budget=10)
    for step, value in enumerate(noisy(500)):
        assert trouble.update(step, loss=value + 2.3 * math.exp(-step / 50), feedback_norm=10 + step / 50) is None


def test_a_hard_batch_late_in_training_is_no_trouble():
    trouble = Trouble(budget=10)
    trouble.update(0, loss=2.3)
    for step in range(1, 60):
        assert trouble.update(step, loss=1e-4) is None
    assert trouble.update(60, loss=0.5) is None
    assert trouble.update(61, loss=0.6) == "loss jumped to 0.6 from about 0.0001"


def test_a_loss_below_zero_can_jump_too():
    trouble = Trouble(budget=10)
    for step in range(20):
        assert trouble.update(step, loss=-4.0) is None
    assert trouble.update(20, loss=-1.5)


@pytest.mark.parametrize("name", ["loss", "feedback_norm"])
@pytest.mark.parametrize("value", [4.0, math.inf, math.nan])
def test_a_jump_is_reported_once_and_asks_for_what_follows(name, value):
    trouble = Trouble(budget=20)
    other = {"loss": "feedback_norm", "feedback_norm": "loss"}[name]
    for step, quiet in enumerate(noisy(30)):
        assert trouble.update(step, **{name: quiet, other: None}) is None
    event = trouble.update(30, **{name: value, other: None})
    assert event.startswith(f"{name} ")
    assert f"{value:g}" in event
    assert [step for step in range(60) if trouble.wants(step)] == [30, 31, 32, 34, 38]
    assert [trouble.update(step, **{name: value}) for step in range(31, 60)] == [None] * 29


def test_few_values_are_held_against_the_first():
    for last, event in ((9.9, None), (10.1, "loss jumped to 10.1 from 1")):
        trouble = Trouble(budget=20)
        assert [trouble.update(step, loss=1.0 + 0.1 * step) for step in range(9)] == [None] * 9
        assert trouble.update(9, loss=last) == event


def test_a_run_that_explodes_from_the_start_is_noticed_once_per_baseline():
    trouble = Trouble(budget=100)
    events = [trouble.update(step, loss=2.5 * 7.0**step, feedback_norm=0.0) for step in range(15)]
    assert [step for step, event in enumerate(events) if event] == [2, 12]


def test_what_falls_does_not_jump():
    trouble = Trouble(budget=20)
    for step, value in enumerate([1.0] * 10 + [1.1, 1.3]):
        assert trouble.update(step, loss=value) is None
    # Since step 12 far above the median of the window, but only the first of them rose.
    events = [trouble.update(step, loss=value) for step, value in enumerate([9.0, 8.0, 7.0] + [6.0] * 9, start=12)]
    assert [bool(event) for event in events] == [True] + [False] * 11
    assert trouble.update(24, loss=5.0) is None
    window = Trouble(budget=20)
    for step in range(12):
        window.update(step, loss=10.0**step if step < 9 else 10.0**8 / (step - 7))
    assert window.update(12, loss=1e7) is None


def test_a_value_that_begins_at_zero_has_no_decades():
    trouble = Trouble(budget=20)
    assert [trouble.update(step, feedback_norm=float(step)) for step in range(30)] == [None] * 30


@pytest.mark.parametrize("budget", [0, 1, 3, 6, 7, 13])
def test_the_budget_is_never_exceeded(budget):
    trouble, taken = Trouble(budget), 0
    for step in range(400):
        level = 3.0 ** (step // 40)
        taken += trouble.update(step, loss=level) is not None
        taken += trouble.wants(step)
    assert taken == budget


def test_resumed_trouble_agrees_with_one_never_stopped(tmp_path):
    values = [3.0 ** (step // 40) * value for step, value in enumerate(noisy(300))]
    straight = Trouble(12)
    expected = [(straight.update(step, loss=value), straight.wants(step)) for step, value in enumerate(values)]
    assert sum(event is not None for event, _ in expected) >= 2
    trouble, got = Trouble(12), []
    for step, value in enumerate(values):
        got.append((trouble.update(step, loss=value), trouble.wants(step)))
        torch.save(trouble.state_dict(), tmp_path / "state.pt")
        trouble = Trouble(0)
        trouble.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert got == expected


def test_the_state_is_a_copy():
    trouble = Trouble(5)
    trouble.update(0, loss=1.0)
    state = trouble.state_dict()
    trouble.update(1, loss=2.0)
    assert state["windows"] == {"loss": [1.0]}
