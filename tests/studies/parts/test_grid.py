"""Grids: which cells there are, and how what they found is laid out."""

import dataclasses

import numpy as np
import pytest

from wtdiag.diagnostics.comparison.results import read_results
from wtdiag.probes.errors import InputError
from wtdiag.studies.engine.cell import Outcome
from wtdiag.studies.file.plan import read_plan
from wtdiag.studies.parts.grid import Grid, tunings

TWO = """
title = "A <b>"
[settings]
depth = 3
width = 8
[rules.ia-sgd]
rule = "ia"
feedback_optimizer = "sgd"
[tune]
search.lr = [0.01, 0.1]
per = ["depth"]
[[grid]]
factors.rule = ["bp", "fa", "ia-sgd"]
factors.depth = [2, 3]
factors.noise.none = {}
factors.seed = [0, 1]
[[grid]]
factors.rule = ["bp", "fa"]
factors.noise.none = {}
factors.noise.strong = { update_noise = 0.1 }
factors.seed = [0, 1]
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "study.toml").write_text(TWO)
    return read_plan(str(tmp_path / "study.toml"))


def outcomes(grid, **changed):
    for number, cell in enumerate(grid.cells.values()):
        grid.ended(cell, Outcome("finished", "", 10, number / 100, 1.0, 2.0))
    for key, outcome in changed.items():
        grid.ended(next(cell for cell in grid.cells.values() if key in cell.path.name), outcome)


def test_grids_are_joined_into_one_set_of_cells(plan, tmp_path):
    grid = Grid(tmp_path, plan)
    assert {name: list(levels) for name, levels in grid.factors.items()} == {
        "rule": ["bp", "fa", "ia-sgd"],
        "depth": [2, 3],
        "noise": ["none", "strong"],
        "seed": [0, 1],
    }
    assert grid.total == 3 * 2 * 2 + 2 * 2  # what both grids have is there once
    names = {cell.path.name for cell in grid.cells.values()}
    assert "fa,depth=3,noise=strong,seed=1" in names
    strong = grid.cells["fa", 3, "strong", 1]
    assert (strong.settings.update_noise, strong.settings.depth, strong.settings.seed) == (0.1, 3, 1)
    assert grid.cells["ia-sgd", 2, "none", 0].settings.feedback_optimizer == "sgd"


def test_seeds_go_slowest(plan, tmp_path):
    grid = Grid(tmp_path, plan)
    seeds = [grid.next().settings.seed for _ in range(grid.total)]
    assert seeds == sorted(seeds)
    assert grid.next() is None


def test_results_have_the_factors_as_dims(plan, tmp_path):
    grid = Grid(tmp_path, plan)
    outcomes(grid, **{"bp,depth=2,noise=none,seed=1": Outcome("failed", "no memory")})
    results = grid.results()
    assert results["status"].dims == ("rule", "depth", "noise", "seed")
    failed = results.sel(rule="bp", depth=2, noise="none", seed=1)
    assert (failed.status.item(), failed.reason.item()) == ("failed", "no memory")
    assert np.isnan(failed.test_accuracy)
    assert results.status.sel(rule="ia-sgd", noise="strong").values.tolist() == [["absent"] * 2] * 2
    assert results.run.sel(rule="bp", depth=2, noise="none", seed=1).item() == "cells/bp,depth=2,noise=none,seed=1"


def test_results_survive_the_disk(plan, tmp_path):
    grid = Grid(tmp_path, plan)
    outcomes(grid)
    read = read_results(grid.save())
    assert read.attrs["title"] == "A <b>"
    assert read.identical(read_results(grid.save()))
    assert (read.test_accuracy.units, read.seconds.units) == ("1", "s")
    assert read.status.values.tolist() == grid.results().status.values.tolist()


def test_cells_that_have_not_come_are_pending(plan, tmp_path):
    status = Grid(tmp_path, plan).results().status
    assert set(status.values.ravel().tolist()) == {"pending", "absent"}


def test_what_was_tuned_goes_into_the_cells_it_was_tuned_for(plan, tmp_path):
    assert list(tunings(plan)) == [(2,), (3,)]
    grid = Grid(tmp_path, plan, {("fa", 3): {"lr": 0.01}})
    lr = {key: cell.settings.lr for key, cell in grid.cells.items()}
    assert {key for key, value in lr.items() if value == 0.01} == {key for key in lr if key[:2] == ("fa", 3)}
    tuned = grid.results().tuned_lr
    assert (tuned.sel(rule="fa", depth=3, noise="none") == 0.01).all()
    assert tuned.sel(rule="bp").isnull().all()


def test_tuning_for_what_is_no_factor_is_refused(plan):
    with pytest.raises(InputError, match="tune: per: expected factors other than"):
        tunings(dataclasses.replace(plan, tune=dataclasses.replace(plan.tune, per=("width",))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("depth = [2, 3]", "depth = [2, 3]\nfactors.lr = [0.1, 0.2]"), "'lr' cannot be searched"),
        (("search.lr", "search.seed"), "'seed' cannot be searched"),
        (('feedback_optimizer = "sgd"', "depth = 5"), "'depth' is set by both a factor and the method 'ia-sgd'"),
        (("factors.noise.none", "factors.status.none"), "'status': a result has this name"),
    ],
)
def test_no_level_is_set_twice(tmp_path, change, message):
    def check():
        tunings(read_plan(str(tmp_path / "study.toml")))

    (tmp_path / "study.toml").write_text(TWO.replace("[settings]", "[settings]\nlr = 0.05").replace(*change))
    with pytest.raises(InputError, match=message):
        check()


def test_what_an_earlier_start_has_trained_is_looked_at(plan, tmp_path):
    from wtdiag.trainers.loop.fit import Training

    first = Grid(tmp_path, plan)
    cell = first.cells["bp", 2, "none", 0]
    small = dataclasses.replace(cell.settings, epochs=1.0, snapshots=2)
    for _ in Training(small, cell.path):
        pass
    first.look()
    assert first.results().status.sel(rule="bp", depth=2, noise="none", seed=0).item() == "finished"
    with pytest.raises(InputError, match="was made with epochs"):
        first.check()
    first.check(but=["epochs", "snapshots"])


def test_grids_that_disagree_are_refused(plan, tmp_path):
    other = dataclasses.replace(plan.grids[1], settings={"depth": 3, "lr": 7.0})
    with pytest.raises(InputError, match="two grids differ in the settings"):
        Grid(tmp_path, dataclasses.replace(plan, grids=(plan.grids[0], other)))


def test_a_level_that_is_not_known_is_asked_for(plan, tmp_path):
    other = dataclasses.replace(plan.grids[1], factors={"rule": plan.grids[1].factors["rule"]})
    with pytest.raises(InputError, match="'noise': one grid varies it, and another gives it no level"):
        Grid(tmp_path, dataclasses.replace(plan, grids=(plan.grids[0], other)))


def test_settings_that_cannot_be_used_are_named_before_anything_is_trained(plan, tmp_path):
    bad = dataclasses.replace(plan.grids[0], settings={"batch_size": 1})
    with pytest.raises(InputError, match="batch_size: expected a number ≥ 2"):
        Grid(tmp_path, dataclasses.replace(plan, grids=(bad,)))
