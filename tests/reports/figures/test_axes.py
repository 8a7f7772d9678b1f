"""Where axes begin and end, and when they are logarithmic."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from wtdiag.reports.figures.axes import log_axis, steps_axis


@pytest.fixture
def axes():
    return Figure().subplots()


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize(
    ("values", "floor", "decades"),
    [
        ([1e-3, 1.0], 0.0, (-3, 0)),
        ([1e-8, 1e-2, 10.0], 0.0, (-8, 1)),
        ([1e-8, 1e-2, 10.0], 1e-4, (-3, 1)),  # what lies further below is left out
        ([1e-2, 10.0], 1e-4, (-2, 1)),  # nothing does
        ([1e-2, 10.0, 0.0, -5.0, np.nan, np.inf], 0.0, (-2, 1)),
    ],
)
def test_a_logarithmic_axis_holds_its_values_and_a_margin(axes, side, values, floor, decades):
    assert log_axis(getattr(axes, f"{side}axis"), values, floor=floor)
    other = {"x": "y", "y": "x"}[side]
    assert getattr(axes, f"get_{side}scale")() == "log"
    assert getattr(axes, f"get_{other}scale")() == "linear"
    low, high = decades
    margin = max(0.1, 0.05 * (high - low))
    assert np.log10(getattr(axes, f"get_{side}lim")()) == pytest.approx([low - margin, high + margin])


@pytest.mark.parametrize("values", [[1.0, 29.0], [], [0.0, -1.0], [np.nan, 1.0]])
def test_an_axis_stays_linear_where_values_span_less_than_a_factor_thirty(axes, values):
    assert not log_axis(axes.yaxis, values)
    assert axes.get_yscale() == "linear"


def test_early_snapshots_are_stretched_from_the_first_after_the_start(axes):
    steps_axis(axes, np.array([0, 5, 10, 20, 50, 100, 1000]))
    assert axes.get_xscale() == "symlog"
    assert axes.xaxis.get_transform().linthresh == 5
    assert axes.xaxis.get_majorticklocs().tolist() == [0, 10, 100, 1000]


@pytest.mark.parametrize("steps", [[0, 100, 200, 300, 400], [0, 1, 2, 1000]])
def test_even_or_few_snapshots_are_not_stretched(axes, steps):
    steps_axis(axes, np.array(steps))
    assert axes.get_xscale() == "linear"


@pytest.mark.parametrize(("others", "end"), [([15.0], 15), ([5.0], 13), ([], 13)])
def test_steps_beyond_the_last_snapshot_are_on_the_axis(axes, others, end):
    steps_axis(axes, np.array([0, 4, 8, 13]), others)
    assert end < axes.get_xlim()[1] < end + 1


@pytest.mark.parametrize(("low", "high", "ticks"), [(0.16, 8, 3), (1.0, 31, 4), (1e-36, 1e18, 3)])
def test_a_logarithmic_axis_has_several_ticks_with_room_between_them(axes, low, high, ticks):
    log_axis(axes.xaxis, [low, high])
    begin, end = axes.get_xlim()
    shown = [tick for tick in axes.xaxis.get_majorticklocs() if begin <= tick <= end]
    assert ticks <= len(shown) <= 6


def test_one_snapshot_has_one_tick(axes):
    steps_axis(axes, np.array([7]))
    assert axes.xaxis.get_majorticklocs().tolist() == [7]
