"""The sampling of the test set in the intervals of claims."""

import numpy as np
import pytest

from tests.diagnostics.claims.worlds import on, the, transfer
from wtdiag.diagnostics.claims.carried import carry
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults, check_results


def with_examples(results, count=400):
    """Return results whose runs tell which examples they had right, drawn independently, and accuracies of these."""
    rng = np.random.default_rng(2)
    right = (rng.random((*results["test_accuracy"].shape, count)) < results["test_accuracy"].values[..., None]) * 1
    dims = (*results["test_accuracy"].dims, "example")
    return results.assign(right=(dims, right.astype(np.int8)), test_accuracy=(dims[:-1], right.mean(-1)))


def test_the_sampling_of_the_test_set_is_in_the_interval(holding):
    results = with_examples(holding.grid)
    check_results(results)
    place = {"depth": 16, "relative_noise": 0}
    right = results.right.sel(place).transpose("rule", "example", "seed")
    result = on("sa-matches-bp-deep", results)
    expected = intervals.of_crossed_mean((right.sel(rule="sa") - right.sel(rule="bp")).values)
    assert (result.low, result.high) == pytest.approx(expected)
    assert "with the sampling of 400 test examples" in result.why
    # three runs of one network on one test set: no seed differs, and still the test set is a sample
    same = results.isel(seed=[0] * 5).assign_coords(seed=range(5))
    result = on("sa-matches-bp-deep", same)
    gap = (same.right.sel(place).sel(rule="sa") - same.right.sel(place).sel(rule="bp")).isel(seed=0).values
    assert result.high - result.value == pytest.approx(1.966 * gap.std(ddof=1) / 20, rel=1e-3)


@pytest.mark.parametrize("spoil", ["unknown", "other"])
def test_runs_that_do_not_tell_or_tell_wrongly_leave_it_out(spoil, holding):
    results = with_examples(holding.grid)
    at = {"rule": "sa", "depth": 16, "relative_noise": 0, "seed": 2}
    results["right"].loc[at] = -1 if spoil == "unknown" else 0
    assert "without the sampling of the test set" in on("sa-matches-bp-deep", results).why


def test_a_larger_test_set_of_another_network_and_a_run_that_diverged_change_nothing(holding):
    results = with_examples(holding.grid)
    expected = on("sa-matches-bp-deep", results)
    larger = results["right"].pad(example=(0, 100), constant_values=-1).astype(np.int8)
    padded = results.drop_vars("right").assign(right=larger)
    result = on("sa-matches-bp-deep", padded)
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high))
    at = {"rule": "sa", "depth": 16, "relative_noise": 0, "seed": 2}
    for name, value in (("right", -1), ("test_accuracy", 0.1), ("status", "diverged")):
        padded[name].loc[at] = value
    assert "with the sampling of 400 test examples" in on("sa-matches-bp-deep", padded).why


def test_the_sampling_of_the_test_set_is_in_the_interval_of_transfers():
    """Against resampling of the test examples."""
    results = with_examples(transfer((0.88, 0.8), (0.88, 0.3)), 300)
    measured = on_transfer = the("ia-transfers-better", StudyResults(None, {}, {"all": results}))
    assert "with the sampling of 300 test examples" in on_transfer.why
    without = the("ia-transfers-better", StudyResults(None, {}, {"all": results.drop_vars("right")}))
    assert measured.high > without.high
    rng, drawn = np.random.default_rng(0), []
    for _ in range(300):
        accuracy = results["right"].isel(example=rng.integers(0, 300, 300)).mean("example")
        ratio = accuracy / accuracy.sel(rule="bp", configuration=0)
        change = (ratio.sel(architecture="conv") - ratio.sel(architecture="mlp4")).mean(["configuration", "seed"])
        drawn.append(float(change.sel(rule="ia") - change.sel(rule="wm-reg")))
    influence = carry({"all": results}, ["ia", "wm-reg"]).examples
    difference = influence["ia"] - influence["wm-reg"]
    assert difference.std(ddof=1) / 300**0.5 == pytest.approx(np.std(drawn), rel=0.15)
