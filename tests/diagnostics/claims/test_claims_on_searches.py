"""Claims that sweeps and transfers decide."""

import re

import pytest

from tests.diagnostics.claims.worlds import cell, sweep, the, transfer
from wtdiag.diagnostics.claims import CLAIMS
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults


def test_transfer_and_robustness_by_hand(holding):
    accuracy = holding.transfers["all"].test_accuracy
    ratio = accuracy / accuracy.sel(rule="bp", configuration=0)
    change = ratio.sel(architecture="conv") - ratio.sel(architecture="mlp4")
    wm, ia = change.sel(rule="wm-reg").values, change.sel(rule="ia").values
    result = the("wm-reg-does-not-transfer", holding)
    assert result.value == pytest.approx(wm.mean())
    assert (result.low, result.high) == pytest.approx(intervals.of_crossed_mean(wm))
    better = the("ia-transfers-better", holding)
    assert better.value == pytest.approx((ia - wm).mean())
    assert (better.low, better.high) == pytest.approx(intervals.of_crossed_mean(ia, wm))
    assert the("ia-more-robust", holding).value == pytest.approx((38 - 8) / 40)


def test_trials_of_tpe_are_no_sample():
    result = the("ia-more-robust", StudyResults(None, {"all": sweep(38, 8, sampler="tpe")}))
    assert result.verdict == "undecided at this scale"
    assert "tpe draws trials where earlier ones did well" in result.why


@pytest.mark.parametrize(("count", "word"), [(40, "every"), (0, "no")])
def test_a_mark_that_all_or_none_reach_tells_nothing(count, word):
    result = the("ia-more-robust", StudyResults(None, {"all": sweep(count, count)}))
    assert result.verdict == "undecided at this scale"
    assert f"{word} configuration of either rule reaches 95 %" in result.why


@pytest.mark.parametrize("rule", ["ia", "wm-reg"])
def test_a_search_that_theory_pruned_decides_nothing(rule, holding):
    pruned = cell(holding.sweeps["all"], "status", "pruned", rule=rule, trial=39)
    result = the("ia-more-robust", StudyResults(None, {"all": pruned}))
    assert result.verdict == "undecided at this scale"
    assert f"{int(rule == 'ia')} ia, {int(rule == 'wm-reg')} wm-reg trials were pruned" in result.why
    of_bp = cell(holding.sweeps["all"], "status", "pruned", rule="bp", trial=39)
    assert the("ia-more-robust", StudyResults(None, {"all": of_bp})).verdict == "seen"


def test_trials_that_failed_or_run_do_not_count(holding):
    failed = cell(holding.sweeps["all"], "status", "failed", rule="ia", trial=list(range(10)))
    result = the("ia-more-robust", StudyResults(None, {"all": failed}))
    assert result.value == pytest.approx(28 / 30 - 8 / 40)
    assert (result.n, result.verdict) == (30, "seen")
    assert "10 ia, 0 wm-reg failed trials are left out" in result.why
    running = cell(holding.sweeps["all"], "status", "running", rule="ia", trial=list(range(10)))
    assert the("ia-more-robust", StudyResults(None, {"all": running})).value == pytest.approx(28 / 30 - 8 / 40)


def test_the_largest_sweep_and_transfer_decide(holding):
    small = {"a": sweep(1, 19, 20), **holding.sweeps, "z": sweep(1, 19, 20)}
    assert the("ia-more-robust", StudyResults(None, small)) == the("ia-more-robust", holding)


def test_configurations_that_differ_leave_it_open():
    """One of five configurations breaks on the target: whatever the seeds, that is a matter of which were drawn."""
    moved = transfer((0.88, 0.88), (0.88, 0.78), seeds=10)
    assert the("ia-transfers-better", StudyResults(None, {}, {"all": moved})).verdict == "seen"
    broken = cell(moved, "test_accuracy", 0.3, rule="ia", configuration=2, architecture="conv")
    result = the("ia-transfers-better", StudyResults(None, {}, {"all": broken}))
    assert (result.verdict, result.n) == ("undecided at this scale", 10)
    assert result.value < 0 < result.high
    assert re.search(r"by configuration ia \S+/\S+/−64\.\d/\S+/\S+, wm-reg ", result.why)


@pytest.mark.parametrize("name", ["ia-transfers-better", "wm-reg-does-not-transfer"])
def test_few_configurations_decide_nothing(name, holding):
    for at in ({"configuration": 2}, {"configuration": [1, 2]}):
        few = cell(holding.transfers["all"], "status", "absent", rule="wm-reg", **at)
        result = the(name, StudyResults(None, {}, {"all": few}))
        assert result.verdict == "undecided at this scale"
        assert "fewer than 5 configurations of wm-reg decide nothing" in result.why
        assert "configurations, seeds and test examples but not the search" in CLAIMS[name].decision


def test_a_rule_that_failed_at_the_source_has_nothing_to_transfer():
    result = the("wm-reg-does-not-transfer", StudyResults(None, {}, {"all": transfer((0.88, 0.8), (0.15, 0.05))}))
    assert result.verdict == "undecided at this scale"
    assert "wm-reg on mlp4 itself reaches only 15" in result.why
