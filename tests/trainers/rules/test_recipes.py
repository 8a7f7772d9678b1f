"""What a search for recipes varies, and what its table says."""

import json
import math

import optuna
import pytest

from bench.evidence import page as page_of
from bench.evidence import recipes
from wtdiag.trainers.rules import RULES

optuna.logging.set_verbosity(optuna.logging.WARNING)
NAMES = sorted(RULES.keys() - {"sum"})


@pytest.fixture
def cell():
    return recipes.RecipeCell("ia", "conv", optuna.storages.InMemoryStorage())


@pytest.mark.parametrize("name", NAMES)
def test_a_search_goes_around_the_defaults(name):
    space = recipes.space(name)
    assert ("feedback_lr" in space) == (RULES[name].learned and RULES[name].recipe.optimizer != "forward")
    assert not {"amp", "self"} & set(space), "their scale is that of the others"
    assert ("inputs" in space) == (name in ("aa", "ia", "wm-reg")), "the others learn from noise, or from no input"
    cell = recipes.RecipeCell(name, "mlp 4", optuna.storages.InMemoryStorage())
    for point in cell.neighbours():
        assert point.keys() == space.keys()
        assert all(
            value in space[key].choices or space[key].low <= value <= space[key].high for key, value in point.items()
        )
        assert cell.settings(0, **point).rule_at(0.0, 0.0).name == name


def test_convolutional_networks_are_searched_around_their_own_rate(cell):
    assert [point["lr"] for point in cell.neighbours()] == pytest.approx([0.5, 0.08])


def test_a_cell_compares_its_default_with_the_best_found(cell):
    space = {name: given for name, given in recipes.space("ia").items() if name == "lr"}
    for value, lr in ((0.5, 0.1), (0.8, 0.3), (0.7, 0.2)):
        ranges = {name: optuna.distributions.FloatDistribution(given.low, given.high) for name, given in space.items()}
        cell.study.add_trial(optuna.trial.create_trial(value=value, params={"lr": lr}, distributions=ranges))
    assert math.isnan(cell.ratio)
    assert recipes.verdict([cell]).endswith("not run or not searched yet: 1 of the rules on conv.")
    kept = {json.dumps([seed, recipes.default_values("ia")]): 0.6 for seed in recipes.SEEDS}
    cell.study.set_user_attr("defaults", kept)
    assert recipes.row(cell) == ("`ia`", "conv", "3, 0 pruned", "80.0", "lr 0.3", "60.0", "2", "0.75")
    assert recipes.verdict([cell]) == "0 of 1 defaults reach 90 % of the best found; short of it: `ia` on conv (0.75)."


def test_where_nothing_learns_a_default_reaches_nothing(cell):
    cell.study.add_trial(optuna.trial.create_trial(value=1 / 36))
    cell.study.set_user_attr(
        "defaults", {json.dumps([seed, recipes.default_values("ia")]): 1 / 36 for seed in recipes.SEEDS}
    )
    assert recipes.row(cell)[-1] == ""
    assert recipes.verdict([cell]).endswith("no trial has learned: `ia` on conv.")


def test_defaults_that_have_changed_are_run_again(cell):
    cell.study.set_user_attr("defaults", {json.dumps([1, {"forward_lr": 0.01}]): 0.6})
    assert cell.defaults(run=False) == []


def test_defaults_from_before_a_coefficient_existed_still_count(cell):
    now = recipes.default_values("ia")
    before = {name: value for name, value in now.items() if name != "activation_forward"}
    cell.study.set_user_attr("defaults", {json.dumps([seed, before]): 0.25 for seed in recipes.SEEDS})
    assert cell.defaults(run=False) == [0.25, 0.25]
    heads, _, row = recipes.accuracies_table([cell]).splitlines()
    assert heads == "| rule | mlp 4 | mlp 8 | conv | resnet8 |"
    assert row == "| `ia` |  |  | 25.0 |  |"


def test_the_table_of_defaults_names_every_rule():
    table = recipes.defaults_table(NAMES)
    page = (page_of.DOCS / recipes.PAGE).read_text(encoding="utf-8")
    assert all(line in page for line in table.splitlines()), "python -m bench recipes 0 writes them"
    assert all(f"| `{name}` | 0.05 | 0.2 |" in table for name in NAMES)
    assert "| `kp` | 0.05 | 0.2 | as the forward weights | scale 1, decay 0.01 |" in table
