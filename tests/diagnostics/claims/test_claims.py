"""What every claim must do in a world in which it holds, in one in which it does not, and where nothing is told."""

import math
import re

import numpy as np
import pytest

from tests.diagnostics.claims.worlds import FALL_TO_NOISE, NAN, SETTINGS, grid, on, the, world
from wtdiag.diagnostics.claims import CLAIMS
from wtdiag.diagnostics.comparison.results import StudyResults, check_results


def test_the_worlds_are_good_results(holding, failing):
    for evidence in (holding, failing):
        for results in (evidence.grid, evidence.sweeps["all"], evidence.transfers["all"]):
            check_results(results)


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_told_whole(name):
    claim = CLAIMS[name]
    assert claim.name == name
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    assert re.search(r"\d{4}, arXiv:\d{4}\.\d{5}$", claim.paper)
    assert claim.sentence.endswith(".")
    assert claim.statistic
    assert claim.reason
    assert claim.needs.startswith("a ")
    assert claim.direction in ("above", "below", "within")
    assert math.isfinite(claim.threshold)
    assert claim.threshold > 0 or claim.direction != "within"
    assert re.match("Return .*; the threshold is ", claim.measure.__doc__)
    assert "; not seen if it lies wholly " in claim.decision


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_not_tested_without_evidence(name, holding):
    for evidence in (
        StudyResults(),
        StudyResults(holding.grid.sel(rule=["bp"])),
        StudyResults(holding.grid.drop_sel(rule="bp")),
    ):
        result = the(name, evidence)
        assert result.verdict == "not tested"
        assert result.n == 0
        assert math.isnan(result.value)
        assert CLAIMS[name].needs in result.why


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_seen_where_it_holds_and_not_seen_where_it_fails(name, holding, failing):
    seen = the(name, holding)
    not_seen = on(name, grid(FALL_TO_NOISE)) if name.endswith("stands-noise") else the(name, failing)
    assert (seen.verdict, not_seen.verdict) == ("seen", "not seen")
    for result in (seen, not_seen):
        assert result.low <= result.value <= result.high
        assert result.n in (5, 40)
        assert re.match(f"Over {result.n} (seeds|trials) of .* on digits", result.why)
        assert result.why.endswith(" points.")
        assert "\n" not in result.why


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("holds", [True, False])
def test_few_seeds_or_trials_decide_nothing(name, holds):
    result = the(name, world(holds, seeds=4, trials=19))
    assert result.verdict == "undecided at this scale"
    assert re.search("fewer than 5 seeds|fewer than 20 trials", result.why)
    assert result.n in (4, 19)


@pytest.mark.parametrize("name", CLAIMS)
def test_the_order_of_seeds_and_trials_does_not_matter(name, holding):
    order = [3, 0, 4, 1, 2]
    shuffled = StudyResults(
        holding.grid.isel(seed=order, depth=[1, 0], rule=slice(None, None, -1)),
        {"all": holding.sweeps["all"].isel(trial=slice(None, None, -1))},
        {"all": holding.transfers["all"].isel(seed=order, architecture=[1, 0], rule=[2, 0, 1])},
    )
    result, expected = the(name, shuffled), the(name, holding)
    assert result.verdict == expected.verdict
    np.testing.assert_allclose(
        [result.value, result.low, result.high], [expected.value, expected.low, expected.high], rtol=1e-12
    )


@pytest.mark.parametrize("name", CLAIMS)
def test_where_backprop_has_not_learned_nothing_is_decided(name, holding, failing):
    for evidence in (holding, failing):
        spoiled = [
            each.assign({measure: each[measure].where(each["rule"] != "bp", 0.15)})
            for each, measure in (
                (evidence.grid, "test_accuracy"),
                (evidence.sweeps["all"], "validation_accuracy"),
                (evidence.transfers["all"], "test_accuracy"),
            )
        ]
        result = the(name, StudyResults(spoiled[0], {"all": spoiled[1]}, {"all": spoiled[2]}))
        assert result.verdict == "undecided at this scale"
        assert "below twice chance" in result.why


@pytest.mark.parametrize("name", CLAIMS)
def test_where_chance_is_not_known_nothing_is_decided(name, holding):
    evidence = StudyResults(
        holding.grid.drop_attrs(deep=False).assign_attrs(settings=SETTINGS),
        {"all": holding.sweeps["all"].assign_attrs(classes="ten")},
        {"all": holding.transfers["all"].assign_attrs(classes="ten")},
    )
    result = the(name, evidence)
    assert result.verdict == "undecided at this scale"
    assert "do not hold the number of classes" in result.why


@pytest.mark.parametrize("status", ["failed", "interrupted", "pending"])
@pytest.mark.parametrize("name", [name for name in CLAIMS if name != "ia-more-robust"])
def test_a_seed_that_lacks_a_run_is_left_out_and_counted(name, status):
    evidence = world(True, seeds=6)
    lacking = [each.copy(deep=True) for each in (evidence.grid, evidence.transfers["all"])]
    for each in lacking:
        each["status"].loc[{"seed": 3}] = status
        each["test_accuracy"].loc[{"seed": 3}] = NAN
    result = the(name, StudyResults(lacking[0], {}, {"all": lacking[1]}))
    assert result.n == 5
    assert "1 seed is left out" in result.why
    without = StudyResults(evidence.grid.drop_sel(seed=3), {}, {"all": evidence.transfers["all"].drop_sel(seed=3)})
    expected = the(name, without)
    assert (result.value, result.low, result.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert result.verdict == expected.verdict == "seen"
