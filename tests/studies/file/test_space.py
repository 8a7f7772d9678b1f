"""Ranges, how they are written down, and which rules have which parameter."""

from __future__ import annotations

import dataclasses
import math

import optuna
import pytest

from wtdiag.probes.errors import InputError
from wtdiag.studies.file.methods import divided, searched
from wtdiag.studies.file.space import Range, grid, parse_search, parse_space
from wtdiag.trainers.config.settings import Settings
from wtdiag.trainers.rules import RULES


def test_the_two_ways_to_write_a_range_agree() -> None:
    words = parse_search(
        ["lr=log:0.005:0.5", "amp=linear:0:1", "momentum=0,0.5,0.9", "nesterov=true,false", "inputs=noise,activations"]
    )
    table = parse_space(
        {
            "lr": {"log": [0.005, 0.5]},
            "amp": {"linear": [0, 1]},
            "momentum": [0, 0.5, 0.9],
            "nesterov": [True, False],
            "inputs": ["noise", "activations"],
        }
    )
    assert words == table
    assert table["lr"] == Range(0.005, 0.5, log=True)
    assert table["nesterov"].choices == (True, False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["lrr=log:0.1:1"], r"'lrr' is not known; did you mean 'lr'\? Choices: .*momentum.*amp"),
        (["rule=bp,fa"], "'rule' is not known"),
        (["seed=0,1"], "'seed' cannot be searched, because a search sets it itself"),
        (["holdout=0.1,0.2"], "'holdout' cannot be searched, because a search sets it itself"),
        (["device=cpu,cuda"], "'device' cannot be searched, because it does not change what is learned"),
        (["probe_size=8,16"], "'probe_size' cannot be searched, because it does not change"),
        (["lr"], "expected NAME=log:LOW:HIGH"),
        (["=0.1,0.2"], "expected NAME=log:LOW:HIGH"),
        (["lr=log:0.5:0.1"], "lr: expected low < high, got 0.5 and 0.1"),
        (["lr=linear:1:1"], "lr: expected low < high, got 1 and 1"),
        (["lr=log:0:0.1"], "lr: expected positive bounds for a logarithm, got 0 and 0.1"),
        (["lr=log:0.1"], "lr: expected two numbers"),
        (["lr=log:a:b"], "lr: expected two numbers"),
        (["lr=linear:0:inf"], "lr: expected two finite bounds"),
        (["lr=lin:0:1"], "'lin' is not known; did you mean 'linear'"),
        (["lr=0.1"], "lr: expected two or more different choices"),
        (["lr=0.1,0.1"], "lr: expected two or more different choices"),
        (["lr=0.1,0.2", "lr=0.3,0.4"], "lr is given twice"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(words: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse_search(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given", [3, "log", {"log": [1, 2], "linear": [1, 2]}, {"log": 3}, {}, [[1], [2]], {"linear": [True, 3]}]
)
def test_a_table_of_another_form_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="search: lr: "):
        parse_space({"lr": given})


def test_points_go_from_end_to_end() -> None:
    spread = Range(0.001, 1.0, log=True).points(4)
    assert spread == pytest.approx([0.001, 0.01, 0.1, 1.0])
    assert (spread[0], spread[-1]) == (0.001, 1.0)
    assert Range(0.0, 1.0).points(5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Range(0.01, 1.0, log=True).points(1) == [pytest.approx(0.1)]
    assert Range(choices=("a", "b", "c")).points(2) == ["a", "c"]
    assert Range(1, 4, whole=True).points(9) == [1, 2, 3, 4]


def test_suggestions_lie_in_the_range_and_on_its_scale() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [Range(1e-4, 1.0, log=True).suggest(study.ask(), "lr") for _ in range(200)]
    assert 1e-4 <= min(drawn) < 1e-3
    assert sum(math.log10(value) for value in drawn) / 200 == pytest.approx(-2, abs=0.3)
    whole = {Range(2, 4, whole=True).suggest(study.ask(), "depth") for _ in range(50)}
    assert whole == {2, 3, 4}
    assert all(type(value) is int for value in whole)
    assert {Range(choices=(False, "x")).suggest(study.ask(), "c") for _ in range(50)} == {False, "x"}


def test_each_method_is_searched_over_what_it_has() -> None:
    methods = {
        "bp": {"rule": "bp"},
        "wm": {"rule": "wm-reg"},
        "ia": {"rule": "ia"},
        "kp": {"rule": "kp"},
        "kp-adam": {"rule": "kp", "feedback_optimizer": "adam"},
    }
    space = parse_search(["lr=log:0.01:1", "null=linear:0:1", "feedback_lr=log:0.01:1", "depth=log:2:8"])
    found = searched(methods, space)
    assert {label: list(mine) for label, mine in found.items()} == {
        "bp": ["lr", "depth"],
        "wm": ["lr", "feedback_lr", "depth"],
        "ia": ["lr", "null", "feedback_lr", "depth"],
        "kp": ["lr", "depth"],
        "kp-adam": ["lr", "feedback_lr", "depth"],
    }
    assert found["bp"]["depth"].points(3) == [2, 4, 8]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(Settings) if field.type in ("float", "float | None")]
)
def test_having_a_parameter_is_what_the_settings_say(rule: str, name: str) -> None:
    try:
        Settings(**{"rule": rule, name: 0.1})
    except InputError:
        has = False
    else:
        has = True
    space = {name: Range(0.1, 0.2)}
    # A second method takes it in any case, so that not having it is no error.
    other = {"rule": "fa"} if name == "pretrain_noise" else {"rule": "ia", "feedback_optimizer": "sgd"}
    assert (name in searched({"other": other, "rule": {"rule": rule}}, space)["rule"]) == has


@pytest.mark.parametrize(
    ("rule", "word", "says"),
    [
        ("wm-reg", "null=log:0.1:1", "'null' is not a coefficient of bp, wm-reg; rules that have it: ia, sum"),
        ("fa", "feedback_lr=log:0.1:1", "feedback_lr: fa has no learned feedback weights"),
        ("ia", "momentum=linear:0:1", "momentum: expected a number below 1, got 1"),
        ("ia", "lr=linear:-1:1", "lr: expected a number ≥ 0, got -1"),
        ("ia", "depth=linear:1.5:3", "depth: expected whole numbers, got 1.5 and 3"),
        ("ia", "optimizer=sgd,lion", "'lion' is not known"),
        ("ia", "scale=linear:0:1", "ia: scale: expected a positive number, got 0"),
    ],
)
def test_a_parameter_that_no_rule_takes_is_refused(rule: str, word: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        searched({"bp": {"rule": "bp"}, rule: {"rule": rule}}, parse_search([word]))


def test_a_grid_spends_its_budget_evenly() -> None:
    space = parse_search(["lr=log:0.01:1", "amp=linear:0:1", "momentum=0,0.9"])
    points = grid(space, 40)
    assert len(points) == len({tuple(point.values()) for point in points}) == 5 * 4 * 2
    assert {point["momentum"] for point in points} == {0, 0.9}
    assert [len(grid({"lr": space["lr"]}, trials)) for trials in (1, 2, 7)] == [1, 2, 7]
    assert len(grid({"momentum": space["momentum"]}, 9)) == 2
    assert grid({}, 5) == [{}]


@pytest.mark.parametrize("trials", [1, 2, 3, 5, 12, 30, 31])
def test_a_grid_never_exceeds_its_budget(trials: int) -> None:
    space = parse_search(["lr=log:0.01:1", "amp=linear:0:1", "momentum=0,0.5,0.9", "depth=linear:2:3"])
    space = dict(searched({"ia": {"rule": "ia"}}, space)["ia"])
    assert 1 <= len(grid(space, trials)) <= trials


def test_settings_and_coefficients_go_to_those_rules_that_have_them() -> None:
    values = {"lr": 0.1, "feedback_lr": 0.5, "feedback_optimizer": "adam", "coefficients": {"null": 0.2}}
    settings, methods, left_out = divided(["bp", "ia", "kp"], values)
    assert settings == {"lr": 0.1}
    assert methods == {
        "bp": {"rule": "bp"},
        "ia": {"rule": "ia", "feedback_optimizer": "adam", "feedback_lr": 0.5, "coefficients": {"null": 0.2}},
        "kp": {"rule": "kp", "feedback_optimizer": "adam", "feedback_lr": 0.5},
    }
    assert [line.split(",")[0] for line in left_out] == [
        "bp has no feedback_optimizer", "bp has no feedback_lr", "bp has no null", "kp has no null",
    ]  # fmt: skip
    for values, says in (
        ({"coefficients": {"self": 1}}, "'self'"),
        ({"feedback_lr": -1}, "feedback_lr: expected a number ≥ 0"),
        ({"lrr": 1}, "'lrr' is not known; did you mean 'lr'"),
    ):
        with pytest.raises(InputError, match=says):
            divided(["bp", "ia"], values)


def test_the_settings_that_a_run_records_can_be_divided_among_other_rules() -> None:
    """`wtdiag sweep --config` reads them from a run's config.json, where each setting stands with its value."""
    values = {
        name: value for name, value in Settings(rule="kp").as_dict().items() if name not in ("rule", "coefficients")
    }
    settings, methods, _ = divided(["bp", "ia", "dfa"], values)
    assert settings.keys() | {name for own in methods.values() for name in own} == {*values, "rule"}
    _, methods, left_out = divided(["bp", "dfa"], {"points": "fc2"})
    assert methods["dfa"]["points"] == "fc2"
    assert [line.split(",")[0] for line in left_out] == ["bp has no points"]
