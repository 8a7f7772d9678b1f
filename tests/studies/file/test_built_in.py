"""The studies that come with wtdiag: each can be made, says what it is, and decides the claims that it names."""

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr

from wtdiag.diagnostics.claims import CLAIMS, decide
from wtdiag.diagnostics.claims.carried import LEAST
from wtdiag.diagnostics.claims.verdicts import NOT_TESTED
from wtdiag.diagnostics.comparison.results import StudyResults, check_results, gather
from wtdiag.studies.engine.workers import Workers
from wtdiag.studies.file.plan import built_in, read_plan
from wtdiag.studies.study import Study

NAMES = ("depth-gap", "metaparameters", "noisy-updates", "transfer", "two-routes", "weight-transport")
RUN = [f"small/{name}" for name in NAMES]
SMALL = [*RUN, "small/after-2020", "small/learned-from-noise"]  # which have no part that none of the others runs
MEDIUM = [f"medium/{name}" for name in NAMES]
FULL = [f"full/{name}" for name in NAMES]
SAID = ("Asks", "Command", "Duration", "Expected", "Chosen")
DATA = {"small": {"digits", "glyphs"}, "medium": {"cifar10"}, "full": {"mnist", "cifar10", "imagenet"}}
SEEDS = 5
"""Fewer decide no claim."""


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as workers:  # one thread each: more wait for each other on networks this small
        yield workers


def test_all_are_there():
    assert sorted(built_in()) == sorted(SMALL + MEDIUM + FULL)


@pytest.mark.parametrize("name", SMALL + MEDIUM + FULL)
def test_its_head_says_what_it_is(name):
    head, _, rest = built_in()[name].read_text(encoding="utf-8").partition("\n\n")
    lines = head.splitlines()
    assert all(line.startswith("# ") and len(line) <= 140 for line in lines)
    said = dict(line[2:].split(": ", 1) for line in lines if line[2:].partition(": ")[0] in SAID)
    assert tuple(said) == SAID
    assert said["Command"].startswith(f"wtdiag study {name}")
    assert any(unit in said["Duration"] for unit in ("minutes", "hours", "days"))
    assert rest.startswith("title = ")


@pytest.mark.parametrize("name", SMALL + MEDIUM + FULL)
def test_all_that_it_trains_can_be_trained(name, tmp_path):
    """A cell's settings are checked where the cell is made, both ends of a searched range where the sweep is."""
    plan = read_plan(name)
    study = Study(tmp_path / "out", plan)
    cells = study.cells()
    assert len(cells) > 100
    assert {cell.settings.data for cell in cells} <= DATA[name.partition("/")[0]]
    assert plan.title
    assert plan.about
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SMALL + MEDIUM + FULL)
def test_what_claims_rest_on_is_paired_and_tuned(name):
    plan = read_plan(name)
    assert plan.grids or plan.sweeps
    for grid in plan.grids:
        assert plan.tune is not None, "rules are compared at rates of one search each"
        assert "lr" in plan.tune.search
        assert len(grid.factors["seed"]) >= SEEDS
        assert "bp" in grid.factors["rule"]
        # Whatever else is varied may have another best rate.
        assert {*grid.factors} - {"rule", "seed"} <= {*plan.tune.per}
    for transfer in plan.transfers:
        assert len(transfer.seeds) >= SEEDS
        assert transfer.top >= LEAST
    if "ia-more-robust" in plan.claims:
        assert {sweep.sampler for sweep in plan.sweeps} == {"random"}
    assert not [sweep.name for sweep in plan.sweeps if sweep.map and sweep.prune], "or the map would obey the theory"


@pytest.mark.parametrize("name", SMALL + MEDIUM + FULL)
def test_it_holds_what_its_claims_take(name, tmp_path):
    plan = read_plan(name)
    study = Study(tmp_path / "out", plan)
    assert plan.claims or name.endswith("/metaparameters")  # which draws a map
    for claim in plan.claims:
        if "transfer" in claim:
            assert {"bp", "wm-reg", *(["ia"] if "ia" in claim else [])} <= set(plan.sweeps[0].rules)
            assert plan.transfers[0].sweep == plan.sweeps[0].name
        elif claim == "ia-more-robust":
            assert {"bp", "wm-reg", "ia"} <= set(plan.sweeps[0].rules)
        else:
            measured = CLAIMS[claim].measure(StudyResults(done(study.grid.results())))
            assert measured is not None, CLAIMS[claim].needs
            assert "not deep" not in measured.blocked
            assert " rank" not in measured.blocked
            assert "beside it" not in measured.doubt


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_cut_down_one_runs_to_the_end(name, tmp_path, workers):
    plan = short(read_plan(name))
    decided = Study(tmp_path / "out", plan).run(workers)
    evidence = gather(tmp_path / "out")
    every = [*filter(None, [evidence.grid]), *evidence.sweeps.values(), *evidence.transfers.values()]
    assert len(every) == bool(plan.grids) + len(plan.sweeps) + len(plan.transfers)
    for results in every:
        check_results(results)
        assert set(results["status"].values.ravel()) <= {"finished", "diverged", "pruned", "absent"}
    if evidence.grid is not None:
        trained = evidence.grid.where(evidence.grid["status"] == "finished")
        assert trained["error_angle"].sel(rule="bp").max() == 0
        assert np.isfinite(trained["tuned_lr"].sel(rule="bp")).any()
    assert list(dict.fromkeys(result.name for result in decided)) == list(plan.claims)
    assert NOT_TESTED not in {result.verdict for result in decided}
    assert decide(evidence, plan.claims) == decided or any(math.isnan(result.value) for result in decided)


def done(results: xr.Dataset) -> xr.Dataset:
    """Return the results of a grid as if every run had ended at one accuracy."""
    return results.assign(
        status=results["status"].where(results["status"] == "absent", "finished"),
        test_accuracy=results["test_accuracy"].fillna(0.5),
    ).assign_attrs(classes=10)


def short(plan):
    """Return a plan with a few steps in each run, one seed, two levels of each factor, and as few trials as will do."""

    def cut(values):
        return {**values, "epochs": 0.2} if "epochs" in values else values

    def few(name, levels):
        kept = {"rule": slice(None), "seed": slice(1), "network": slice(1, None)}.get(name, slice(2))
        return {level: cut(levels[level]) for level in list(levels)[kept]}

    grids = [
        dataclasses.replace(grid, factors={name: few(name, levels) for name, levels in grid.factors.items()})
        for grid in plan.grids
    ]
    return dataclasses.replace(
        plan,
        settings=plan.settings | {"epochs": 0.2, "snapshots": 2, "width": 8},
        grids=tuple(grids),
        probes=plan.probes[-1:],
        tune=plan.tune and dataclasses.replace(plan.tune, trials=1, per=()),
        sweeps=tuple(
            dataclasses.replace(each, trials=2, sampler="random", settings=cut(each.settings)) for each in plan.sweeps
        ),
        transfers=tuple(
            dataclasses.replace(each, top=1, seeds=(0,), to=dict(list(each.to.items())[-1:])) for each in plan.transfers
        ),
    )
