"""Steps of Adam that do not fit are named, and only where they keep B away from its fixed point."""

import numpy as np
import pytest

from tests.diagnostics.synthetic import CONFIG, healthy, metrics, plant
from wtdiag.diagnostics.findings.diagnose import diagnose


def kinds(analysis, config=CONFIG, log=None):
    return {found.kind for found in diagnose(analysis, config, metrics() if log is None else log) if found.layer}


def planted(**measures):
    analysis = healthy()
    plant(analysis, "fc4", since=0, relaxation_time=np.nan, **measures)
    return analysis


def test_large_steps_that_settle_are_no_fault():
    assert kinds(planted(relative_step=3.0)) == set()


def test_a_step_that_was_large_before_the_fixed_point_ran_away_is_the_cause():
    analysis = planted(rest_distance=1.5)
    analysis["relative_step"].loc[{"step": 3, "layer": "fc4"}] = 5.0
    assert kinds(analysis) == {"adam-step-too-large"}


def test_gradient_descent_has_no_step_of_adam():
    assert kinds(planted(relative_step=3.0, rest_distance=1.5, travel_time=np.nan)) == set()


@pytest.mark.parametrize(("step", "found"), [(3, set()), (10, set()), (30, {"adam-step-too-large"})])
def test_feedback_has_time_to_arrive_first(step, found):
    analysis = planted(relative_step=3.0, rest_distance=1.5, travel_time=1.0).sel(step=slice(0, step))
    assert kinds(analysis, CONFIG | {"status": "running"}) == found


def test_steps_that_reach_in_the_time_that_is_left_are_no_fault():
    assert kinds(planted(travel_time=500.0, rest_distance=1.4)) == {"adam-step-too-small"}
    assert kinds(planted(travel_time=200.0, rest_distance=1.4)) == set()
    assert kinds(planted(travel_time=500.0)) == set()  # B began at rest, or W came to meet it


def test_a_run_that_goes_on_is_judged_by_the_steps_that_it_will_take():
    analysis = planted(travel_time=500.0, rest_distance=1.4)
    log = metrics()
    log["epoch"] = log["step"] / 23
    for epochs, found in ((20, {"adam-step-too-small"}), (30, set())):
        config = CONFIG | {"status": "running", "settings": {"epochs": epochs}}
        assert kinds(analysis, config, log) == found


def test_advice_gives_a_rate():
    (found, *_) = diagnose(planted(relative_step=4.0, rest_distance=1.5), CONFIG, metrics())
    assert "from 1 to 0.025: " in found.advice[0]
    (found, *_) = diagnose(planted(travel_time=460.0, rest_distance=1.4), CONFIG, metrics())
    assert "from 1 to 20: " in found.advice[0]
