import numpy as np
import pandas as pd
import pytest

from tests.diagnostics.synthetic import CONFIG, LAYERS, healthy, metrics, plant
from wtdiag.diagnostics.findings.instability import stability


def test_a_stable_run():
    table = stability(healthy(), CONFIG, metrics())
    assert table.index.tolist() == LAYERS
    events = ["unstable_step", "warning_step", "runaway_step", "collapse_step", "lead_time"]
    assert table[events].isna().all(axis=None)
    np.testing.assert_allclose(table.step_size_number, healthy().step_size_number.max("step"))
    np.testing.assert_allclose(table.largest_feedback_lr, 1.0 / table.step_size_number)
    np.testing.assert_allclose(table.largest_coefficient_scale, 1.0 / table.step_size_number)


def test_predicted_against_observed():
    analysis = plant(plant(healthy(), "fc4", since=3, step_size_number=4.0), "fc4", since=4, feedback_norm=1e6)
    plant(analysis, "fc2", since=2, predicted_gain=11.0)
    log = metrics()
    log.loc[log.step > 60, "loss"] = 50.0
    table = stability(analysis, CONFIG, log)
    assert table.loc["fc4", ["unstable_step", "warning_step", "runaway_step", "collapse_step"]].tolist() == [
        10, 10, 30, 63,
    ]  # fmt: skip
    assert table.loc["fc4", ["lead_time", "largest_feedback_lr", "largest_coefficient_scale"]].tolist() == [
        53, 0.25, 0.25,
    ]  # fmt: skip
    assert table.loc["fc2", ["unstable_step", "warning_step", "lead_time"]].fillna(-1).tolist() == [-1, 3, 60]


def test_the_recommended_rate_leaves_room_for_growth():
    analysis = plant(plant(healthy(), "fc4", since=0, step_size_number=0.5), "fc4", since=5, step_size_number=2.0)
    row = stability(analysis, CONFIG, metrics()).loc["fc4"]
    assert row.growth == pytest.approx(4)
    assert row.recommended_feedback_lr == pytest.approx(0.4 * row.largest_feedback_lr)


def test_the_limit_follows_the_learning_rate():
    analysis = plant(plant(healthy(), "fc4", since=0, step_size_number=0.5), "fc4", since=5, step_size_number=2.0)
    log = metrics()
    log.loc[log.step > 80, "feedback_lr"] = 0.1
    assert stability(analysis, CONFIG, log).loc["fc4", "largest_feedback_lr"] == pytest.approx(0.05)
    assert stability(analysis, CONFIG, log.drop(columns="feedback_lr")).largest_feedback_lr.isna().all()


@pytest.mark.parametrize(
    ("status", "loss", "collapse"),
    [
        ({"status": "diverged", "diverged": {"step": 7, "what": "loss"}}, {}, 7),
        ({}, dict.fromkeys(range(40, 231), np.nan), 40),
        ({}, {40: np.nan, 230: np.nan}, np.nan),  # lines without a loss
        ({}, {40: 9.0}, np.nan),  # a spike is no collapse
        ({}, dict.fromkeys(range(50, 100), 9.0), np.nan),  # and what recovers is none
        ({}, dict.fromkeys(range(200, 231), 9.0), 202),  # the median of five has passed it
    ],
)
def test_when_training_broke(status, loss, collapse):
    log = metrics().set_index("step")
    for step, value in loss.items():
        log.loc[step, "loss"] = value
    table = stability(healthy(), status, log.reset_index())
    np.testing.assert_equal(table.collapse_step.unique(), [collapse])


def test_feedback_that_is_no_longer_finite_has_run_away():
    analysis = plant(healthy(), "fc4", since=6, feedback_norm=np.nan, norm_ratio=np.nan, step_size_number=np.inf)
    table = stability(analysis, CONFIG, metrics())
    assert table.loc["fc4", ["runaway_step", "unstable_step"]].tolist() == [150, 150]
    before = healthy().step_size_number.sel(layer="fc4")[:6].max()
    np.testing.assert_allclose(table.loc["fc4", "largest_feedback_lr"], 1 / before)  # not of what it became


def test_without_metrics_or_measures():
    empty = healthy().drop_vars(list(healthy().data_vars))
    table = stability(empty, {}, pd.DataFrame())
    assert table.isna().all(axis=None)
    assert len(table) == len(LAYERS)
