"""Shares of configurations and relative accuracies, by hand."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import binomtest

from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.robustness import COUNTED, best_accuracy, reached, relative
from wtdiag.probes.errors import InputError

NAN = np.nan


def sweep(accuracy, status, rules=("bp", "ia")):
    dims = "rule", "trial"
    variables = {"validation_accuracy": (dims, np.array(accuracy, float)), "status": (dims, np.array(status, object))}
    return xr.Dataset(variables, {"rule": list(rules), "trial": range(len(accuracy[0]))}, {"reference": "bp"})


BP = ["finished"] * 2 + ["absent"] * 6
SEARCH = sweep(
    [[0.8, 0.7] + [NAN] * 6, [0.8, 0.76, 0.75, 0.1, NAN, NAN, NAN, NAN]],
    [BP, ["finished", "finished", "finished", "diverged", "pruned", "failed", "running", "absent"]],
)


def test_what_does_not_finish_does_not_reach_and_what_runs_or_failed_does_not_count():
    found = reached(SEARCH, [0.0, 0.125, 0.95, 1.0])
    np.testing.assert_allclose(found.share.sel(rule="ia"), [3 / 5, 3 / 5, 2 / 5, 1 / 5])  # 0.76 is 95 % of 0.8
    np.testing.assert_allclose(found.share.sel(rule="bp"), [1, 1, 1 / 2, 1 / 2])
    assert found["count"].sel(rule="ia").values.tolist() == [3, 1, 1, 1]
    assert found.status.values.tolist() == [*COUNTED, "failed"]
    assert found.best == best_accuracy(SEARCH) == 0.8
    exact = binomtest(2, 5).proportion_ci()
    np.testing.assert_allclose([found.low.sel(rule="ia", level=0.95), found.high.sel(rule="ia", level=0.95)], exact)


def test_a_curve_never_rises():
    found = reached(SEARCH)
    assert found.sizes["level"] == 101
    assert (np.diff(found.share) <= 0).all()
    assert ((found.low <= found.share) & (found.share <= found.high)).all()


def test_without_a_reference_or_trials_there_is_nothing():
    lost = sweep([[NAN] * 2, [0.8, 0.7]], [["failed", "running"], ["finished"] * 2])
    assert np.isnan(reached(lost, [0.5]).share).all()
    empty = sweep([[0.8], [NAN]], [["finished"], ["absent"]])
    assert np.isnan(reached(empty, [0.5]).share.sel(rule="ia")).all()
    assert np.isnan(best_accuracy(SEARCH.sel(rule=["ia"])))


@pytest.mark.parametrize("levels", [[1.5], [-0.1], [NAN], [[0.5]]])
def test_levels_are_shares(levels):
    with pytest.raises(InputError, match="levels: expected shares from 0 to 1"):
        reached(SEARCH, levels)


def transfer(accuracy, status=None, rules=("bp", "ia")):
    dims = "rule", "configuration", "architecture", "seed"
    accuracy = np.array(accuracy, float)
    status = np.full(accuracy.shape, "finished", object) if status is None else np.array(status, object)
    names = "rule", "configuration", "architecture", "seed"
    levels = (
        list(rules),
        *map(range, (accuracy.shape[1],)),
        [f"net{i}" for i in range(accuracy.shape[2])],
        range(accuracy.shape[3]),
    )
    variables = {"test_accuracy": (dims, accuracy), "status": (dims, status)}
    return xr.Dataset(variables, dict(zip(names, levels, strict=True)), {"reference": "bp", "source": "net0"})


@pytest.fixture
def carried():
    """Return backprop with one configuration and a rule with two, on two networks and three seeds."""
    bp = [[[0.8, 0.5, 1.0], [0.4, 0.4, 0.4]], [[NAN] * 3] * 2]
    ia = [[[0.4, 0.5, 0.5], [0.1, 0.2, 0.3]], [[0.8, 0.25, 1.0], [0.2, 0.2, 0.2]]]
    found = transfer([bp, ia])
    found["status"][0, 1] = "absent"
    return found


def test_relative_to_backprop_of_the_same_seed_and_network(carried):
    found = relative(carried)
    np.testing.assert_allclose(found.relative.sel(rule="ia", configuration=0), [[0.5, 1, 0.5], [0.25, 0.5, 0.75]])
    by_seed = [(0.5 + 1) / 2, (1 + 0.5) / 2, (0.5 + 1) / 2]
    here = found.sel(rule="ia", architecture="net0")
    assert here["mean"] == pytest.approx(np.mean(by_seed))
    there = found.sel(rule="ia", architecture="net1")
    expected = intervals.of_crossed_mean([[0.25, 0.5, 0.75], [0.5, 0.5, 0.5]])
    assert (there.low.item(), there.high.item()) == pytest.approx(expected)
    assert (found["mean"].sel(rule="bp") == 1).all()
    assert (found.n == 3).all()
    assert (found.left_out == 0).all()


@pytest.mark.parametrize("status", ["failed", "interrupted", "pending"])
def test_a_seed_that_lacks_a_run_is_left_out_where_it_lacks_it(carried, status):
    carried["status"][1, 1, 0, 2] = status
    found = relative(carried).sel(rule="ia")
    assert found.n.values.tolist() == [2, 3]
    assert found.left_out.values.tolist() == [1, 0]
    assert found["mean"].sel(architecture="net0") == pytest.approx(0.75)


def test_a_run_that_diverged_counts_as_chance_and_a_lost_reference_leaves_out(carried):
    carried["status"][1, 0, 0, 0] = "diverged"
    assert relative(carried).relative[1, 0, 0, 0] == 0.5
    carried["status"][0, 0, 1] = "failed"
    found = relative(carried).sel(architecture="net1")
    assert (found.n == 0).all()
    assert np.isnan(found["mean"]).all()
    assert np.isnan(relative(carried.sel(rule=["ia"])).relative).all()


def test_the_interval_spans_configurations_that_differ():
    """Seeds all alike and two configurations far apart: two values say little of where the mean is."""
    found = relative(transfer([[[[0.8] * 5]], [[[0.8] * 5]]])).sel(rule="ia")
    assert (found.low, found.high) == (1, 1)
    far = transfer([[[[0.8] * 5]] * 2, [[[0.8] * 5], [[0.2] * 5]]])
    found = relative(far).sel(rule="ia", architecture="net0")
    assert found["mean"] == pytest.approx(0.625)
    assert found.high - found["mean"] == pytest.approx(12.7062 * 0.375, rel=1e-4)  # t with 1 degree of freedom
