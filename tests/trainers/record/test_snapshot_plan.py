import math
from itertools import pairwise

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.trainers.record.snapshot_plan import SnapshotPlan


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
            "max_gb: 0.01 is too little for a snapshot of this model; expected at least 0.094, the size of one",
        ),
    ],
)
def test_bad_plans_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SnapshotPlan(**arguments)
