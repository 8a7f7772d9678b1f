"""Verdicts on worlds in which every claim holds, on worlds in which none does, and on those that tell nothing."""

import dataclasses
import io
import json
import math
import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from bench.evidence import claims as bench_claims
from wtdiag.diagnostics.claims import CLAIMS, VERDICTS, Result, claims_table, decide, read_claims, write_claims
from wtdiag.diagnostics.claims.carried import carry
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults, check_results
from wtdiag.probes.errors import InputError

NAN = np.nan
DEPTHS, NOISE = (2, 16), (0.0, 0.01, 0.1)
SETTINGS = json.dumps({"model": "mlp", "data": "digits"})
RANKS = {"ldfa": 10, "ldfa-low": 2}

# accuracy at the least depth, at the greatest, and what noise 0.01 costs; noise 0.1 costs 0.2 more
HOLD = {
    "bp": (0.95, 0.95, 0.02), "fa": (0.90, 0.50, 0.05), "usf": (0.90, 0.80, 0.05), "frsf": (0.90, 0.85, 0.05),
    "brsf": (0.90, 0.70, 0.05), "wm": (0.95, 0.93, 0.05), "kp": (0.95, 0.945, 0.02), "sa": (0.95, 0.95, 0.015),
    "aa": (0.95, 0.955, 0.02), "ia": (0.94, 0.80, 0.05), "pfa": (0.95, 0.945, 0.02), "soft": (0.95, 0.92, 0.02),
    "ldfa": (0.95, 0.94, 0.02), "ldfa-low": (0.95, 0.80, 0.02),
}  # fmt: skip
FAIL = {
    "bp": (0.95, 0.95, 0.02), "fa": (0.95, 0.945, 0.02), "usf": (0.9, 0.95, 0.02), "frsf": (0.9, 0.94, 0.02),
    "brsf": (0.9, 0.8, 0.02), "wm": (0.9, 0.6, 0.2), "kp": (0.9, 0.6, 0.2), "sa": (0.9, 0.6, 0.2),
    "aa": (0.9, 0.6, 0.2), "ia": (0.8, 0.94, 0.02), "pfa": (0.9, 0.6, 0.2), "soft": (0.9, 0.6, 0.2),
    "ldfa": (0.9, 0.5, 0.2), "ldfa-low": (0.9, 0.7, 0.2),
}  # fmt: skip
FALL_TO_NOISE = FAIL | dict.fromkeys(("sa", "aa", "kp"), (0.9, 0.93, 0.2))  # near backprop until there is noise


def grid(table, seeds=5, settings=SETTINGS):
    """Return a grid; seeds differ as a whole by up to 4 points, which pairing takes out, and each run by 0.1 or so."""
    rng = np.random.default_rng(0)
    costs = np.array([[0, cost, cost + 0.2] for _, _, cost in table.values()])
    accuracy = np.array([ends[:2] for ends in table.values()])[:, :, None, None] - costs[:, None, :, None]
    accuracy = accuracy + rng.uniform(-0.02, 0.02, seeds) + rng.normal(0, 0.001, (*accuracy.shape[:3], seeds))
    dims = {"rule": list(table), "depth": list(DEPTHS), "relative_noise": list(NOISE), "seed": list(range(seeds))}
    shape = tuple(map(len, dims.values()))
    names = "test_accuracy", "test_loss", "weight_angle", "error_angle", "steps", "seconds"
    variables = {
        name: (tuple(dims), accuracy.clip(0, 1) if name == "test_accuracy" else np.zeros(shape)) for name in names
    }
    texts = {"status": "finished", "reason": "", "run": "cells/x"}
    variables |= {name: (tuple(dims), np.full(shape, text, object)) for name, text in texts.items()}
    attrs = {"kind": "grid", "title": "", "settings": settings, "classes": 10, "methods": ranked(RANKS)}
    return xr.Dataset(variables, dims, attrs)


def ranked(ranks):
    """Return methods by ldfa of such ranks, as results hold them."""
    return json.dumps({name: {"rule": "ldfa", "coefficients": {"rank": rank}} for name, rank in ranks.items()})


def sweep(ia, wm, trials=40, sampler="random"):
    """Return a search in which so many configurations of two rules come to 0.9, the rest to 0.5."""
    accuracy = np.array([np.where(np.arange(trials) < count, 0.9, 0.5) for count in (trials, ia, wm)])
    dims = {"rule": ["bp", "ia", "wm-reg"], "trial": list(range(trials))}
    names = "validation_accuracy", "steps", "seconds", "step_size_number", "log_gain"
    variables = {name: (tuple(dims), accuracy) for name in names}
    variables |= {
        name: (tuple(dims), np.full(accuracy.shape, text, object))
        for name, text in (("status", "finished"), ("reason", ""))
    }
    attrs = {
        "kind": "sweep",
        "title": "",
        "settings": SETTINGS,
        "classes": 10,
        "space": "{}",
        "sampler": sampler,
        "reference": "bp",
    }
    return xr.Dataset(variables, dims, attrs)


def transfer(ia, wm, seeds=5, configurations=5):
    """Return a transfer from which two rules come with such accuracies on source and target; backprop's is 0.9."""
    rng = np.random.default_rng(1)
    mean = np.array([(0.9, 0.9), ia, wm])[:, None, :, None] + np.zeros((3, configurations, 2, seeds))
    accuracy = mean + rng.normal(0, 0.002, mean.shape)
    dims = {
        "rule": ["bp", "ia", "wm-reg"],
        "configuration": list(range(configurations)),
        "architecture": ["mlp4", "conv"],
        "seed": list(range(seeds)),
    }
    variables = {name: (tuple(dims), accuracy) for name in ("test_accuracy", "test_loss", "steps", "seconds")}
    variables |= {
        name: (tuple(dims), np.full(mean.shape, text, object))
        for name, text in (("status", "finished"), ("reason", ""))
    }
    attrs = {"kind": "transfer", "title": "", "settings": SETTINGS, "classes": 10, "source": "mlp4", "reference": "bp"}
    return xr.Dataset(variables, dims, attrs)


def world(holds, seeds=5, trials=40):
    if holds:
        parts = grid(HOLD, seeds), sweep(trials - 2, trials // 5, trials), transfer((0.88, 0.8), (0.88, 0.3), seeds)
    else:
        parts = grid(FAIL, seeds), sweep(trials // 5, trials - 2, trials), transfer((0.88, 0.3), (0.85, 0.86), seeds)
    return StudyResults(parts[0], {"all": parts[1]}, {"all": parts[2]})


@pytest.fixture(scope="module")
def holding():
    return world(True)


@pytest.fixture(scope="module")
def failing():
    return world(False)


def the(name, evidence):
    (result,) = decide(evidence, [name])
    assert result.network == ""
    return result


def on(name, results):
    return the(name, StudyResults(results))


def cell(results, name, value, **at):
    """Return results with another value at one place."""
    changed = results.copy(deep=True)
    changed[name].loc[at] = value
    return changed


def test_the_worlds_are_good_results(holding, failing):
    for evidence in (holding, failing):
        for results in (evidence.grid, evidence.sweeps["all"], evidence.transfers["all"]):
            check_results(results)


# What every claim must do


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


# What single claims must do


def test_a_value_by_hand(holding):
    result = the("sa-matches-bp-deep", holding)
    accuracy = holding.grid.test_accuracy.sel(depth=16, relative_noise=0)
    gap = (accuracy.sel(rule="sa") - accuracy.sel(rule="bp")).values
    assert result.value == pytest.approx(gap.mean())
    assert (result.low, result.high) == pytest.approx(intervals.of_mean(gap))
    assert (result.n, result.threshold) == (5, 0.02)
    assert "mlp of depth 16 on digits" in result.why
    assert abs(result.value) < 0.002  # pairing took out what seeds share


def test_widening_and_noise_by_hand(holding):
    accuracy = holding.grid.test_accuracy.mean("seed")
    gap = accuracy.sel(rule="bp", relative_noise=0) - accuracy.sel(rule="ia", relative_noise=0)
    assert the("ia-gap-widens", holding).value == pytest.approx(float(gap.sel(depth=16) - gap.sel(depth=2)))
    noisy = accuracy.sel(depth=16, relative_noise=0.01)
    result = the("sa-stands-noise", holding)
    assert result.value == pytest.approx(float(noisy.sel(rule="sa") - noisy.sel(rule="bp")))
    assert "noise 0.01" in result.why  # 0.1 costs backprop 22 points


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


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [(0.0, "seen"), (0.012, "seen"), (-0.02, "undecided at this scale"), (-0.04, "not seen"), (0.04, "not seen")],
)
def test_a_match_has_two_sides(gap, verdict, holding):
    table = HOLD | {"bp": (0.9, 0.9, 0.02), "sa": (0.9, 0.9 + gap, 0.02)}
    assert on("sa-matches-bp-deep", grid(table)).verdict == verdict


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0.04, "seen"), (0.02, "undecided at this scale"), (0.01, "not seen"), (-0.1, "not seen")]
)
def test_to_outperform_takes_a_margin(gap, verdict):
    assert on("kp-over-fa", grid(HOLD | {"kp": (0.9, 0.5 + gap, 0.02)})).verdict == verdict


def test_sign_symmetry_is_its_hardest_rule(holding):
    assert "wm − frsf" in the("wm-over-ss", holding).why
    assert "wm − usf" in on("wm-over-ss", holding.grid.drop_sel(rule="frsf")).why
    lost = cell(holding.grid, "status", "failed", rule="frsf")
    assert "wm − usf" in on("wm-over-ss", lost).why
    assert on("wm-over-ss", holding.grid.drop_sel(rule=["usf", "frsf", "brsf"])).verdict == "not tested"


def test_without_room_being_no_better_shows_nothing():
    result = on("wm-over-fa", grid(HOLD | {"fa": (0.95, 0.94, 0.02), "wm": (0.95, 0.945, 0.02)}))
    assert result.verdict == "undecided at this scale"
    assert re.search(r"there is no room, because bp itself is only (0\.9|1\.[01]) points above fa", result.why)
    worse = on("wm-over-fa", grid(HOLD | {"fa": (0.95, 0.94, 0.02), "wm": (0.95, 0.93, 0.02)}))
    assert worse.verdict == "not seen"


@pytest.mark.parametrize("name", ["low-rank-loses-nothing", "error-rank-helps"])
@pytest.mark.parametrize(
    ("attrs", "why"),
    [
        ({"methods": ranked({"ldfa": 9, "ldfa-low": 2})}, "the ranks are 9 and 2, and the number of classes, 10"),
        ({"methods": ranked({"ldfa": 20, "ldfa-low": 10})}, "the ranks are 20 and 10"),
        ({"methods": ranked({"ldfa": 10})}, "do not say that ldfa-low is trained by ldfa"),
        ({"methods": ranked(RANKS).replace('"ldfa"}', '"kp"}').replace('"ldfa",', '"kp",')}, "do not say that ldfa is"),
        ({"methods": "{}"}, "do not say that ldfa is"),
        ({"settings": "{}"}, "one number of classes"),
    ],
)
def test_ranks_are_those_that_the_claim_speaks_of(name, attrs, why, holding):
    result = on(name, holding.grid.assign_attrs(attrs))
    assert result.verdict == "undecided at this scale"
    assert why in result.why


def test_a_low_rank_suffices_only_where_a_lower_one_does_not():
    result = on("low-rank-loses-nothing", grid(HOLD | {"ldfa-low": (0.95, 0.94, 0.02)}))
    assert result.verdict == "undecided at this scale"
    assert "the task needs no rank, because ldfa-low too is only 0.5 points below kp" in result.why
    assert on("low-rank-loses-nothing", grid(HOLD | {"ldfa": (0.95, 0.91, 0.02)})).verdict == "not seen"
    there_is_no_room = grid(HOLD | {"ldfa": (0.95, 0.95, 0.02), "ldfa-low": (0.95, 0.94, 0.02)})
    assert "there is no room" in on("error-rank-helps", there_is_no_room).why


@pytest.mark.parametrize("name", ["sa-matches-bp-deep", "kp-near-bp", "pfa-matches-bp", "soft-near-bp"])
def test_a_match_takes_a_control(name, holding):
    without = on(name, holding.grid.drop_sel(rule="fa"))
    assert without.verdict == "undecided at this scale"
    assert "feedback alignment, which would show whether this task tells rules apart, was not run" in without.why
    easy = on(name, grid(HOLD | {"fa": (0.95, 0.945, 0.02)}))
    assert easy.verdict == "undecided at this scale"
    assert "the task does not tell rules apart" in easy.why
    elsewhere = holding.grid.copy(deep=True)
    elsewhere["status"].loc[{"rule": "fa", "depth": 16}] = "absent"
    assert (
        "feedback alignment, which would show whether this task tells rules apart, was not run"
        in on(name, elsewhere).why
    )


@pytest.mark.parametrize(
    ("settings", "deep"),
    [
        ({"depth": 8}, True),
        ({"depth": 7}, False),
        ({"model": "resnet18"}, True),
        ({"model": "vgg16"}, True),
        ({"model": "wide_resnet50_2"}, True),
        ({"model": "resnet8", "depth": 4}, False),
        ({"model": "efficientnet_b7"}, False),
        ({"model": "vit_b_16"}, False),
        ({"model": "convnext1000"}, False),
        ({"model": "mlp"}, False),
        ({}, False),
    ],
)
def test_deep_networks_are_deep(settings, deep, holding):
    single = holding.grid.sel(depth=16, drop=True).assign_attrs(settings=json.dumps(settings))
    result = on("sa-matches-bp-deep", single)
    assert result.verdict == ("seen" if deep else "undecided at this scale")
    assert deep or re.search("does not count as deep|the depth of the network is not known", result.why)


@pytest.mark.parametrize("models", [["resnet18", "vit_b_16"], ["vit_b_16", "resnet18"]])
def test_a_network_of_unknown_depth_decides_nothing(models, holding):
    single = holding.grid.sel(depth=16, drop=True)
    both = StudyResults(xr.concat([single, single], xr.DataArray(models, dims="model")))
    results = decide(both, ["sa-matches-bp-deep"])
    assert [each.network for each in results] == [f"model {name}" for name in models]
    verdicts = dict(zip(models, results, strict=True))
    assert verdicts["resnet18"].verdict == "seen"
    assert verdicts["vit_b_16"].verdict == "undecided at this scale"
    assert "the depth of the network is not known" in verdicts["vit_b_16"].why


def test_the_greatest_depth_is_one_that_both_have(holding):
    shallow = cell(holding.grid, "status", "absent", rule="wm", depth=16)
    result = on("wm-near-bp", shallow)
    assert "mlp of depth 2 on digits" in result.why
    assert on("ia-gap-widens", cell(holding.grid, "status", "absent", rule="ia", depth=16)).verdict == "not tested"


def test_a_ceiling_hides_what_falls_behind():
    result = on("fa-behind-bp", grid(HOLD | {"fa": (0.97, 0.995, 0.02)}))
    assert result.verdict == "undecided at this scale"
    assert "fa reaches more than 98.0 %" in result.why


def test_a_gap_cannot_widen_from_a_rule_that_never_learned():
    result = on("ia-gap-widens", grid(HOLD | {"ia": (0.12, 0.1, 0.0)}))
    assert result.verdict == "undecided at this scale"
    assert "ia at 2 itself reaches only" in result.why


def test_noise_must_bite_and_not_kill():
    weak = grid({rule: (*ends[:2], 0.001) for rule, ends in HOLD.items()}).sel(relative_noise=[0, 0.01])
    assert "too weak to decide" in on("sa-stands-noise", weak).why
    assert on("sa-stands-noise", weak).verdict == "undecided at this scale"
    strong = grid(HOLD).sel(relative_noise=[0, 0.1])
    assert "even this weakest noise costs bp" in on("sa-stands-noise", strong).why
    assert on("sa-stands-noise", grid(HOLD).sel(relative_noise=[0.01, 0.1])).verdict == "not tested"


def test_runs_that_diverged_count_as_chance(holding):
    diverged = cell(holding.grid, "status", "diverged", rule="sa", depth=16, relative_noise=0, seed=[0, 1])
    diverged = cell(diverged, "test_accuracy", 0.1, rule="sa", depth=16, relative_noise=0, seed=[0, 1])
    result = on("sa-matches-bp-deep", diverged)
    assert result.n == 5
    assert result.value == pytest.approx(2 / 5 * -0.85, abs=0.02)
    assert "2 diverged runs count as chance" in result.why


def test_a_rule_that_has_not_learned_has_nothing_to_lose_to_noise():
    result = on("sa-stands-noise", grid(HOLD | {"sa": (0.95, 0.85, 0.0)}))
    assert result.verdict == "undecided at this scale"
    assert re.search(r"without noise, sa is (9\.9|10\.[01]) points below bp", result.why)


def test_noise_that_depends_on_the_learning_rate_decides_nothing(holding):
    assert on("sa-stands-noise", holding.grid.rename(relative_noise="update_noise")).verdict == "not tested"


def test_each_network_is_decided_by_itself(holding):
    second = holding.grid.copy(deep=True)
    second["test_accuracy"] -= 0.06 * (second["rule"] == "sa")
    both = xr.concat([holding.grid, second, holding.grid], xr.DataArray(["mlp", "conv", "vit"], dims="network"))
    both["status"].loc[{"network": "vit", "rule": "sa"}] = "absent"
    mlp, conv = decide(StudyResults(both), ["sa-matches-bp-deep"])  # on vit it is not tested
    alone = the("sa-matches-bp-deep", holding)
    assert (mlp.network, mlp.verdict, mlp.value) == ("mlp", "seen", pytest.approx(alone.value))
    assert (conv.network, conv.verdict, conv.value) == ("conv", "not seen", pytest.approx(alone.value - 0.06))
    assert "network conv" in conv.why
    assert (
        len(decide(StudyResults(both, {}, {"all": transfer((0.88, 0.8), (0.88, 0.3))}), ["ia-transfers-better"])) == 1
    )


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


# Names, files, tables


def test_names_are_checked_and_keep_their_order(holding):
    assert [each.name for each in decide(holding)] == list(CLAIMS)
    assert decide(holding, []) == ()
    assert [each.name for each in decide(StudyResults(), ["kp-near-bp", "fa-behind-bp"])] == [
        "kp-near-bp",
        "fa-behind-bp",
    ]
    with pytest.raises(InputError, match="claims: 'ia-gap' is not known; did you mean 'ia-gap-widens'"):
        decide(holding, ["ia-gap"])


def test_results_are_written_and_read(holding, tmp_path):
    results = decide(holding) + decide(StudyResults(), ["fa-behind-bp"])
    write_claims(results, tmp_path / "claims.json")
    assert "NaN" not in (tmp_path / "claims.json").read_text()
    found = read_claims(tmp_path / "claims.json")
    assert found[:-1] == results[:-1]
    assert math.isnan(found[-1].value)
    assert found[-1].verdict == "not tested"


GOOD = dataclasses.asdict(Result("a", "b", "c", "d", 0.1, 0.0, 0.2, 5, 0.02, "seen", "e"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD | {"verdict": "true"}, f"claim 1: verdict: 'true' is not known.* Choices: {VERDICTS[0]}"),
        (GOOD | {"n": 5.5}, "claim 1: n is 5.5; expected int"),
        (GOOD | {"n": True}, "claim 1: n is True; expected int"),
        (GOOD | {"why": None}, "claim 1: why is None; expected str"),
        (GOOD | {"more": 1}, "claim 1: expected the fields name, paper"),
        ([], "claim 1: expected the fields"),
    ],
)
def test_strangers_files_are_checked(row, message, tmp_path):
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"format": 2, "claims": [row]}))
    with pytest.raises(InputError, match=f"{path}: {message}"):
        read_claims(path)


def test_another_format_is_refused(tmp_path):
    (tmp_path / "claims.json").write_text('{"format": 3, "claims": []}')
    with pytest.raises(InputError, match="expected claims of format 2"):
        read_claims(tmp_path / "claims.json")


def test_verdicts_of_the_first_format_are_read(holding, tmp_path):
    results = decide(holding, ["fa-behind-bp"])
    rows = [{name: value for name, value in dataclasses.asdict(each).items() if name != "network"} for each in results]
    (tmp_path / "claims.json").write_text(json.dumps({"format": 1, "claims": rows}))
    assert read_claims(tmp_path / "claims.json") == results


def test_the_table_is_80_columns_wide(holding, failing):
    untested = decide(StudyResults())
    spoiled = [dataclasses.replace(each, name=each.name + "\x1b[2J", low=-1.0, high=-0.999) for each in decide(failing)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(claims_table([*decide(holding), *spoiled, *untested, *decide(world(True, 2, 2))]))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "undecided at this scale" in text
    assert "−100.0 to −99.9" in text
    for name in CLAIMS:
        assert name in text


def test_the_page_tells_what_a_study_saw(holding, tmp_path):
    holding.grid.to_netcdf(tmp_path / "results.nc", engine="h5netcdf")
    about = {"title": "Small", "command": "wtdiag study small/x", "claims": ["fa-behind-bp", "ia-more-robust"]}
    (tmp_path / "study.json").write_text(json.dumps(about))
    text = bench_claims.section(tmp_path)
    assert text.startswith("### Small\n\n```\nwtdiag study small/x\n```\n\n| claim |")
    assert "**seen**" in text
    assert text.endswith("Not tested: `ia-more-robust`.")
    for name in CLAIMS:
        assert f"| `{name}` |" in bench_claims.rules_table()


def test_a_study_that_has_only_begun(holding):
    begun = holding.grid.assign(status=xr.full_like(holding.grid.status, "pending"))
    result = on("sa-matches-bp-deep", begun.assign(test_accuracy=begun.test_accuracy * NAN))
    assert (result.verdict, result.n) == ("undecided at this scale", 0)
    assert "Over 0 seeds" in result.why
    assert "5 seeds are left out" in result.why
