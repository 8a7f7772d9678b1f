import math
from itertools import pairwise

import pytest
import torch

from wtdiag.probes.errors import InputError
from wtdiag.trainers.record.snapshot_plan import SnapshotPlan, Trouble


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100, 12345])
@pytest.mark.parametrize("count", [2, 3, 10, 64])
def test_count_is_met_with_both_ends(total, count):
    plan = SnapshotPlan(total, count=count)
    assert len(plan) == min(count, total + 1)
    assert plan.steps[0] == 0
    assert plan.steps[-1] == total
    assert list(plan) == sorted(set(plan))


def test_large_steps_have_a_constant_ratio():
    steps = SnapshotPlan(10**6, count=25).steps
    ratios = [after / before for before, after in pairwise(steps[12:])]
    assert max(ratios) / min(ratios) < 1.01


def test_interval_adds_its_multiples():
    plan = SnapshotPlan(100, count=5, every=30)
    assert set(plan) == set(SnapshotPlan(100, count=5)) | {0, 30, 60, 90, 100}


def test_membership_is_that_of_steps():
    plan = SnapshotPlan(50, count=6, every=11)
    assert [step for step in range(-1, 60) if step in plan] == list(plan.steps)


@pytest.mark.parametrize("fit", [1, 2, 3, 5, 8, 20, 29, 30, 31, 100])
def test_plan_and_reserve_fit_the_limit(fit):
    plan = SnapshotPlan(1000, count=30, max_gb=fit * 0.25, snapshot_bytes=250_000_000)
    assert len(plan) + plan.reserve == fit
    assert plan.steps[-1] == 1000
    assert set(plan) <= set(SnapshotPlan(1000, count=30))
    if fit >= 4:
        assert plan.steps[0] == 0
        assert plan.reserve >= 1


def test_without_a_limit_trouble_never_outnumbers_the_plan():
    plan = SnapshotPlan(1000, count=30)
    assert plan.reserve == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total": -1}, "total: expected a whole number of at least 0, got -1"),
        ({"total": 10, "count": 1}, "count: expected a whole number of at least 2, got 1"),
        ({"total": 10, "count": 2.5}, "count: .*got 2.5"),
        ({"total": 10, "every": 0}, "every: expected a whole number of at least 1, got 0"),
        ({"total": 10, "max_gb": 0.0, "snapshot_bytes": 1}, "max_gb: expected a positive number"),
        ({"total": 10, "max_gb": math.nan, "snapshot_bytes": 1}, "max_gb: expected a positive number"),
        ({"total": 10, "max_gb": 1.0}, "max_gb: .*the bytes of a snapshot"),
        (
            {"total": 10, "max_gb": 0.01, "snapshot_bytes": 94_000_000},
            "max_gb: 0.01 holds no snapshot of this model; expected at least 0.094, the size of one",
        ),
    ],
)
def test_bad_plans_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SnapshotPlan(**arguments)


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
