"""Learning rates and coefficients over time: where each schedule begins, ends and turns."""

import math

import pytest

from wtdiag.probes.errors import InputError
from wtdiag.trainers.config.schedules import SCHEDULES, coefficient_schedule, learning_rate


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warm_up_rises_linearly_to_the_full_rate(kind):
    factors = [learning_rate(kind, step, total=100, warmup=4) for step in range(5)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_falls_from_the_end_of_the_warm_up_to_zero_at_the_end_of_the_run():
    factors = [learning_rate("cosine", step, total=20, warmup=4) for step in range(4, 21)]
    assert factors == pytest.approx([(1 + math.cos(math.pi * i / 16)) / 2 for i in range(17)], abs=1e-15)
    assert factors[8] == pytest.approx(0.5)
    assert factors[16] == 0
    assert math.isfinite(learning_rate("cosine", 4, total=4, warmup=4))  # a run that is all warm-up


def test_steps_come_at_one_third_two_thirds_and_eight_ninths():
    factors = [learning_rate("step", step, total=9, warmup=0) for step in range(9)]
    assert factors == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 2 + [0.001])
    assert [learning_rate("constant", step, total=9, warmup=0) for step in range(9)] == [1] * 9


@pytest.mark.parametrize(
    ("words", "points"),
    [
        ("linear:0.2:0.8", {(0.0, 9.0): 0.2, (0.25, 9.0): 0.35, (1.0, 9.0): 0.8}),
        ("exponential:0.1:10", {(0.0, 9.0): 0.1, (0.5, 9.0): 1.0, (1.0, 9.0): 10.0}),
        ("cyclic:3:1:4", {(0.9, 0.0): 3.0, (0.9, 1.0): 2.0, (0.9, 2.0): 1.0, (0.9, 4.0): 3.0, (0.9, 7.0): 2.0}),
        ("window:5:1:2", {(0.9, 0.99): 0.0, (0.9, 1.0): 5.0, (0.9, 1.99): 5.0, (0.9, 2.0): 0.0}),
    ],
)
def test_a_coefficient_passes_through_its_points(words, points):
    schedule = coefficient_schedule("amp", words)
    assert [schedule(*at) for at in points] == pytest.approx(list(points.values()))


def test_what_is_no_schedule_stays():
    assert coefficient_schedule("amp", 0.3)(0.5, 7.0) == 0.3
    assert coefficient_schedule("inputs", "noise")(0.5, 7.0) == "noise"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("linear:1", "coefficient amp: expected linear:FROM:TO over the run, got 'linear:1'"),
        ("linear:1:2:3", "expected linear:FROM:TO"),
        ("linear:a:1", "expected linear:FROM:TO"),
        ("linear:nan:1", "expected linear:FROM:TO"),
        ("exponential:0:1", "expected exponential:FROM:TO over the run, both positive"),
        ("cyclic:1:0:0", "expected cyclic:HIGH:LOW:EPOCHS"),
        ("square:1:2", "schedule of coefficient amp: 'square' is not known"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        coefficient_schedule("amp", words)
