"""Claims that a grid decides: margins, controls, depths, noise."""

import json
import re

import pytest
import xarray as xr

from tests.diagnostics.claims.worlds import HOLD, NAN, RANKS, cell, grid, on, ranked, the, transfer
from wtdiag.diagnostics.claims import decide
from wtdiag.diagnostics.comparison import intervals
from wtdiag.diagnostics.comparison.results import StudyResults


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


def test_a_study_that_has_only_begun(holding):
    begun = holding.grid.assign(status=xr.full_like(holding.grid.status, "pending"))
    result = on("sa-matches-bp-deep", begun.assign(test_accuracy=begun.test_accuracy * NAN))
    assert (result.verdict, result.n) == ("undecided at this scale", 0)
    assert "Over 0 seeds" in result.why
    assert "5 seeds are left out" in result.why
